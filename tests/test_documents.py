"""Documents name files, links and make targets that exist."""

import re

import pytest

from tests.conftest import ROOT

DOCUMENTS = ["README.md", "CONTRIBUTING.md", "SECURITY.md", *(f"docs/{p.name}" for p in sorted(ROOT.glob("docs/*.md")))]


def _named_files(text: str) -> set[str]:
    """Paths with a folder between backticks, without examples (NEW.py, NAME.yaml, globs) and output (capgap-out)."""
    paths = re.findall(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|yaml|txt|md|j2|json))(?: [^`]*)?`", text)
    return {path for path in paths if not re.search(r"NEW|NAME|^\w*out/|^DIR/", path)}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_name_files_that_exist(name: str) -> None:
    text = (ROOT / name).read_text()
    missing = {path for path in _named_files(text) if not any((ROOT / at / path).exists() for at in ("", "capgap"))}
    links = {link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link}
    missing |= {link for link in links if link and not (ROOT / name).parent.joinpath(link).exists()}
    assert not missing


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_name_targets_of_the_makefile(name: str) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([\w-]+)", (ROOT / name).read_text())) <= targets
