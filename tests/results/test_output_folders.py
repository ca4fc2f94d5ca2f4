"""Former pages are kept."""

from pathlib import Path

import pandas as pd
import pytest

import capgap
from capgap.events import Event
from tests.results.frames import outcomes

pytestmark = pytest.mark.usefixtures("brief_page")


@pytest.fixture
def first_page(brief_page: None, tmp_path: Path) -> tuple[Path, bytes]:
    """A folder with a page about ``after`` against ``big``."""
    folder = tmp_path / "out"
    return folder, capgap.analyze(outcomes("big", "after"), teacher="big").write(folder).read_bytes()


@pytest.mark.parametrize(
    ("frame", "arguments"),
    [
        (outcomes("other", "after"), {"teacher": "other"}),
        (outcomes("big", "after"), {"teacher": "none"}),
        (outcomes("big", "gold"), {"teacher": "big"}),
        (outcomes("big", "after"), {"teacher": "after"}),
        (outcomes("big", "after", tasks=("recall", "sums", "more")), {"teacher": "big"}),
        (outcomes("big", "after").assign(battery="another"), {"teacher": "big"}),
        (outcomes("big", "after", "before", n=23), {"teacher": "big", "base": "before"}),
    ],
    ids=["teacher", "no teacher", "student", "swapped", "tasks", "battery", "one item fewer"],
)
def test_a_page_about_another_comparison_is_kept_and_told(
    frame: pd.DataFrame, arguments: dict[str, str], first_page: tuple[Path, bytes]
) -> None:
    folder, page = first_page
    events: list[Event] = []
    numbers = (folder / "estimates.parquet").read_bytes()
    capgap.analyze(frame, **arguments).write(folder, on_event=events.append)  # type: ignore[arg-type]
    (kept,) = (folder / "earlier").iterdir()
    assert (kept / "report.html").read_bytes() == page
    assert (kept / "estimates.parquet").read_bytes() == numbers
    assert (folder / "report.html").read_bytes() != page
    assert str(kept) in str(events)


@pytest.mark.parametrize(
    ("models", "arguments"),
    [
        (("big", "after"), {}),
        (("big", "after", "gold"), {}),
        (("big", "after", "before"), {"base": "before"}),
    ],
    ids=["again", "one student more", "its base too"],
)
def test_a_comparison_that_contains_the_former_one_takes_its_place(
    models: tuple[str, ...], arguments: dict[str, str], first_page: tuple[Path, bytes]
) -> None:
    folder, _ = first_page
    capgap.analyze(outcomes(*models), teacher="big", **arguments).write(folder)  # type: ignore[arg-type]
    assert not (folder / "earlier").exists()


def test_going_to_and_fro_keeps_two_pages(first_page: tuple[Path, bytes]) -> None:
    folder, _ = first_page
    frame = outcomes("big", "other", "after")
    for teacher in ("other", "big", "other", "big"):
        capgap.analyze(frame, students="after", teacher=teacher).write(folder)
    assert len(list((folder / "earlier").iterdir())) == 2


@pytest.mark.parametrize("damage", ["missing", "rubbish", "old"])
def test_a_page_whose_numbers_cannot_be_read_is_kept(damage: str, first_page: tuple[Path, bytes]) -> None:
    folder, page = first_page
    numbers = folder / "estimates.parquet"
    if damage == "missing":
        numbers.unlink()
    elif damage == "rubbish":
        numbers.write_bytes(b"\x00 rubbish")
    else:
        pd.read_parquet(numbers).drop(columns="roles").to_parquet(numbers)
    capgap.analyze(outcomes("big", "after"), teacher="big").write(folder)
    (kept,) = (folder / "earlier").iterdir()
    assert (kept / "report.html").read_bytes() == page
    numbers.unlink()
    (folder / "report.html").write_text("another page")
    capgap.analyze(outcomes("big", "after"), teacher="big").write(folder)
    pages = {path.read_bytes() for path in folder.glob("earlier/*/report.html")}
    assert pages == {page, b"another page"}  # each has a place of its own


def test_a_kept_page_keeps_the_tables_that_it_was_made_of(first_page: tuple[Path, bytes]) -> None:
    folder, _ = first_page
    frame = outcomes("big", "other", "after")
    items = pd.DataFrame({"battery": ["battery"], "task": ["recall"], "item": ["0"], "prompt": ["Q?"]})
    capgap.analyze(frame, teacher="other", items=items).write(folder)
    table = (folder / "items.parquet").read_bytes()
    capgap.analyze(frame, students="after", teacher="big").write(folder)
    assert not (folder / "items.parquet").exists()
    assert table in {path.read_bytes() for path in folder.glob("earlier/*/items.parquet")}
