"""The page reads codes and never prose: with every prose field rewritten, nothing but those words changes."""

import json
import random
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from capgap.report import markdown_report
from tests.report.conftest import page_of

PROSE = ("contrast", "method", "alternative", "note", "family")
SPOKEN = ("aria-label", "title")
"""Attributes that hold text."""
MARK = "QX"
"""Begins every invented word and no other word of the pages."""
DECOYS = (
    *("this recipe", "tasks like these", "these tasks", "no number", "refused", "closure: knowledge - reasoning"),
    *("left out for over 5 % unparsed answers: t", "labels make 99 % of the variance", "right answers with a trace"),
    *("prompted differently", "two-stage", "by step", "Next: a", "0.123", "[1, 2]", "; ", ": ", " - ", "<b>", "?", "."),
)
"""What a search in prose would look for."""


class Skeleton(HTMLParser):
    """What a page is without its words: tags, attributes that hold no text, and where words stand."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.structure: list[tuple] = []
        self.words: list[str] = []
        self.cells: list[str] = []
        """Text of numeric cells, intervals and machine-readable numbers."""
        self._numeric: list[bool] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.structure.append((tag, *((name, None if name in SPOKEN else value) for name, value in attrs)))
        self.words += [attributes[name] for name in SPOKEN if name in attributes]
        classes = (attributes.get("class") or "").split()
        self._numeric.append(tag in ("data", "text") or bool({"n", "ci", "gap", "refused"} & set(classes)))

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        self.structure.append((f"/{tag}",))
        if tag not in ("meta", "link"):
            self._numeric.pop()

    def handle_data(self, data):
        if data.strip():
            self.structure.append(("words",))
            self.words.append(data)
            if any(self._numeric[-2:]):
                self.cells.append(data)


def invented(rng: random.Random, number: int) -> str:
    """A text of random length that no other number has."""
    letters = ("".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 12))) for _ in range(rng.randint(1, 15)))
    return " ".join([f"{MARK}{number}", *letters, *rng.sample(DECOYS, 6)])


def with_invented_prose(estimates: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """The estimates with every value of the prose columns replaced: equal texts by equal, different by different."""
    rng = random.Random(seed)
    columns = {}
    for name in PROSE:
        values = list(estimates[name].dropna().unique())
        rng.shuffle(values)
        words = {value: invented(rng, number) for number, value in enumerate(values)}
        columns[name] = estimates[name].map(words, na_action="ignore").astype(estimates[name].dtype)
    return estimates.assign(**columns)


def with_invented_reasons(labels: pd.DataFrame | None, *, seed: int) -> pd.DataFrame | None:
    """Labels whose evidence gives other words for its reasons."""
    if labels is None:
        return None
    rng = random.Random(seed)

    def rewritten(evidence: str) -> str:
        parsed = json.loads(evidence)
        for number, reason in enumerate(parsed["reasons"]):
            reason["words"] = invented(rng, number)
        return json.dumps(parsed)

    words = {evidence: rewritten(evidence) for evidence in labels["evidence"].unique()}
    return labels.assign(evidence=labels["evidence"].map(words))


@pytest.fixture(scope="module", params=["cohort36", "single", "labelled"])
def skeletons(request, tmp_path_factory):
    """The page of a case, and that of the same case with other prose."""
    case, folder = request.getfixturevalue(request.param), tmp_path_factory.mktemp(request.param)
    changes = {
        "estimates": with_invented_prose(case.estimates, seed=1),
        "labels": with_invented_reasons(case.labels, seed=2),
    }
    return Skeleton(page_of(folder, case)), Skeleton(page_of(folder, case, **changes))


def test_structure_order_ids_and_colours_stay(skeletons):
    before, after = skeletons
    assert len(before.structure) > 1000
    assert before.structure == after.structure


def test_numbers_stay(skeletons):
    """Every number, interval and refusal; heads of numeric columns name contrasts, which are words."""
    before, after = skeletons
    assert len(before.cells) == len(after.cells) > 100
    assert [(a, b) for a, b in zip(before.cells, after.cells, strict=True) if a != b and MARK not in b] == []
    numbers = [text for text in before.cells if re.search(r"\d", text)]
    assert len(numbers) > 100
    assert [text for text in after.cells if re.search(r"\d", text) and MARK not in text] == [
        a for a, b in zip(before.cells, after.cells, strict=True) if re.search(r"\d", a) and MARK not in b
    ]


def test_only_rewritten_words_differ(skeletons):
    before, after = skeletons
    assert MARK not in "".join(before.words)
    different = [(a, b) for a, b in zip(before.words, after.words, strict=True) if a != b]
    assert len(different) > 20
    assert [pair for pair in different if MARK not in pair[1]] == []


@pytest.mark.parametrize("name", ["single", "labelled"])
def test_markdown_keeps_its_lines_and_columns(request, name):
    case = request.getfixturevalue(name)
    arguments = {key: value for key, value in case.arguments().items() if key != "items"}
    before = markdown_report(**arguments).splitlines()
    after = markdown_report(**arguments | {"estimates": with_invented_prose(case.estimates, seed=3)}).splitlines()
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        assert old == new or MARK in new
        assert old.split(" ")[0] == new.split(" ")[0]
        assert old.count(" | ") == new.count(" | ")
