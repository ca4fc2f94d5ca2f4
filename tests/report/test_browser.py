import shutil

import pytest

from capgap.report import write_report
from tests.report.fixture import TASKS, comparison

pytestmark = pytest.mark.browser

WORD = (
    "<script>document.title='owned'</script><img src=http://127.0.0.1:9/x> "
    "long_unbroken_word_of_eighty_characters_long_unbroken_word_of_eighty_characters_"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    selenium = pytest.importorskip("selenium")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip(f"selenium {selenium.__version__} is there, chromium or chromedriver is not")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    profile = tmp_path_factory.mktemp("profile")
    for flag in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-background-networking",
        f"user-data-dir={profile}",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    hostile = [(f"{name} {WORD[:80]}", kind, domain, form) for name, kind, domain, form in TASKS]
    cases = {
        "plain": comparison(n_items=16),
        "hostile": comparison(tasks=hostile, n_items=12, students=(WORD, "s2", "s3"), word=WORD),
        "lone": comparison(n_items=12, teacher=None, base=None, control=None),
    }
    return {name: write_report(folder / f"{name}.html", **case.arguments()) for name, case in cases.items()}


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("name", ["plain", "hostile", "lone"])
def test_the_page_is_quiet_alone_and_no_wider_than_the_screen(browser, pages, name, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get_log("performance")
    browser.get(pages[name].as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(each => { each.open = true })")
    assert browser.execute_script("return document.scripts.length") == 0
    assert browser.execute_script("return document.images.length") == 0
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.title != "owned"
    assert browser.get_log("browser") == []
    sent = [
        entry["message"] for entry in browser.get_log("performance") if 'Network.requestWillBeSent"' in entry["message"]
    ]
    assert [message for message in sent if pages[name].name not in message and "data:," not in message] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrasts_with_its_ground(browser, pages, scheme):
    """WCAG's ratio of 4.5 for ink and muted text on paper."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(pages["plain"].as_uri())
    paper, ink, muted = (
        browser.execute_script(f"return getComputedStyle(document.documentElement).getPropertyValue('--{name}').trim()")
        for name in ("paper", "ink", "muted")
    )
    assert (_luminance(paper) > 0.5) == (scheme == "light")
    for colour in (ink, muted):
        high, low = sorted((_luminance(paper), _luminance(colour)), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5


def _luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
