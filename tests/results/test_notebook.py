"""Results in a notebook."""

import capgap
from tests.results.frames import outcomes


def test_a_notebook_shows_sentence_next_step_and_headline_numbers_escaped() -> None:
    hostile = "<script>alert(1)</script>"
    frame = outcomes("big", "before", "after").replace({"model": {"after": hostile}})
    results = capgap.analyze(frame, teacher="big", base="before")
    html = results._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "gap closure" in html
    assert html.count("<table") == 1
    closure = results.estimates.query("quantity == 'gap_closure' and level == 'battery' and weighting == 'tasks'")
    assert f"{100 * closure['estimate'].iloc[0]:.1f}" in html
    assert len(repr(results)) < 200


def test_of_many_students_a_notebook_gets_a_page() -> None:
    students = [f"student{n:02d}" for n in range(30)]
    frame = outcomes("big", *students, tasks=("t",), n=12)
    html = capgap.analyze(frame, teacher="big")._repr_html_()
    assert html.count("<tr") <= 25
    assert "and 6 more rows" in html
    assert "30 students, one by one" in html
