import re

import numpy as np
import pandas as pd
import pytest

from capgap.errors import StoreError, TableError, UsageError
from capgap.report import markdown_report, write_report
from capgap.schema import ESTIMATES, LABELS, Roles, validate
from tests.report.conftest import SMALL, page_of
from tests.report.fixture import Page, comparison

HOSTILE = (
    '<script>alert(1)</script>"><img src=x onerror=alert(2)> ]]> </svg></style></title><!-- '
    "\x00\x1b\u202e {{ 7*7 }} $x_1$"
)


def markdown(case, **changes):
    """The report in Markdown: the same content without figures, hence fast."""
    return markdown_report(**{k: v for k, v in case.arguments(**changes).items() if k != "items"})


def test_every_number_of_the_page_stands_in_the_estimates(case, html):
    numbers = case.estimates[["estimate", "null_value"]].to_numpy(dtype=float).ravel()
    page = Page(html)
    assert len(page.data) > 150
    assert set(page.data) <= set(numbers[~np.isnan(numbers)])


def test_the_numbers_of_the_student_are_all_shown(case, html):
    rows = case.estimates[(case.estimates["model"] == "student") & (case.estimates["status"] == "ok")]
    shown = {
        "task": ["accuracy", "gap", "gain", "base_gap", "gap_closure", "retention", "teacher_effect", "agreement"],
        "domain": ["gap", "gap_closure", "retention"],
        "capability": ["accuracy", "gap", "gap_closure", "retention", "teacher_effect", "agreement", "fidelity"],
        "battery": ["accuracy", "gap", "gap_closure", "retention", "teacher_effect", "error_inheritance"],
        "slice": ["accuracy", "gap"],
    }
    for level, quantities in shown.items():
        of_level = rows[(rows["level"] == level) & rows["quantity"].isin(quantities)]
        assert len(of_level) >= len(quantities)
        assert set(of_level["estimate"]) <= set(Page(html).data), level


def test_numbers_read_as_they_are_rounded(case, html):
    row = case.estimates.query("quantity == 'gap' and level == 'capability' and group == 'reasoning'").iloc[0]
    shown = f"+{100 * row['estimate']:.1f}"
    assert f'<data value="{row["estimate"]}">{shown}</data>' in html
    assert f"[{100 * row['conf_low']:.1f}, {100 * row['conf_high']:.1f}]" in html


def test_refused_numbers_say_why_and_open_ends_say_open(html):
    assert "Teacher and base cannot be told apart (word)." in "".join(Page(html).text)
    assert "refused" in html
    assert re.search(r"\[[^\]]+, open\]", html)


def test_the_same_input_gives_the_same_bytes(case, html, tmp_path):
    assert page_of(tmp_path, case) == html


def test_examples_are_items_that_the_teacher_has_right_and_the_student_wrong(case, html):
    wide = case.outcomes.pivot(index="item", columns="model", values="score")
    drawn = re.findall(r'class="id"><bdi>([^<]+)', html)
    assert len(drawn) > len(SMALL)
    assert (wide.loc[drawn, "teacher"] == 1).all()
    assert (wide.loc[drawn, "student"] == 0).all()


def assert_harmless(html):
    page = Page(html)
    assert not {"script", "img", "iframe", "object", "embed", "form", "base"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name not in ("src", "action", "srcset", "data"), (tag, name)
        if name == "href":
            assert value.startswith("#") or value == "data:,", value
        if name == "style":
            assert "url(" not in value.replace("url(#", "")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", html)
    assert "{{ 7*7 }}" in html or "7*7" not in html
    return page


def test_hostile_text_is_shown_and_never_markup(tmp_path):
    tasks = [(f"{HOSTILE}{i}", kind, f"{HOSTILE}{i}", form) for i, (_, kind, _, form) in enumerate(SMALL)]
    case = comparison(
        tasks=tasks,
        n_items=24,
        students=(HOSTILE + "s", HOSTILE + "t"),
        teacher=HOSTILE + "T",
        base=HOSTILE + "b",
        control=HOSTILE + "c",
        word=HOSTILE,
    )
    run = case.run | {HOSTILE: HOSTILE, "versions": {HOSTILE: [HOSTILE, {HOSTILE: HOSTILE}]}, "sentence": [HOSTILE]}
    estimates = case.estimates.assign(note=HOSTILE, method=HOSTILE)
    models = case.models.assign(prompting=[HOSTILE + str(i) for i in range(len(case.models))], weights_hash=HOSTILE)
    page = assert_harmless(page_of(tmp_path, case, run=run, estimates=estimates, models=models))
    assert "<script>alert(1)</script>" in "".join(page.text)
    assert "\u2400" in "".join(page.text)
    text = markdown(case, run=run, estimates=estimates)
    assert "<script" not in text.replace("\\<script", "")


def test_a_policy_forbids_scripts_and_connections(html):
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html).group(1)
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "connect-src" not in policy
    assert_harmless(html)
    assert "://" not in html


def test_every_script_and_broken_text_survives(tmp_path):
    """Right to left, emoji in sequences, and a lone surrogate where JSON can bring one."""
    hebrew, emoji = "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd", "\U0001f9ea\U0001f468\u200d\U0001f469 lab"
    tasks = [(hebrew, "knowledge", emoji, "choose"), (emoji, None, None, "generate")]
    case = comparison(tasks=tasks, n_items=12, students=(hebrew,), word=hebrew)
    text = "".join(assert_harmless(page_of(tmp_path, case, run={"note": "\ud800 alone"})).text)
    assert hebrew in text
    assert emoji in text
    assert "\ufffd alone" in text


def test_withheld_texts_do_not_leak(tmp_path):
    case = comparison(tasks=SMALL, n_items=24, word="plainsecret")
    withheld = case.estimates.assign(note="")
    html = page_of(tmp_path, case, show_items=False, estimates=withheld)
    assert "plainsecret" not in html
    assert "plainsecret" in page_of(tmp_path, case, estimates=withheld)
    assert re.search(r'class="id"><bdi>chains-\d+</bdi> · [0-9a-f]{12}', html)


@pytest.mark.parametrize("missing", [["control"], ["base"], ["base", "control"], ["teacher", "base", "control"]])
def test_missing_roles_are_named_and_nothing_is_invented(missing):
    case = comparison(tasks=SMALL, n_items=16, **dict.fromkeys(missing))
    text = markdown(case)
    assert ("teacher effect" in text) == ("control" not in missing)
    assert ("gap closure" in text) == ("base" not in missing)
    for role in missing if "teacher" not in missing else ["teacher"]:
        assert f"No {role} was given" in text


def test_a_lone_student_gets_its_profile_and_what_a_teacher_would_add(tmp_path):
    case = comparison(tasks=SMALL, n_items=16, teacher=None, base=None, control=None)
    page = Page(page_of(tmp_path, case))
    text = " ".join(page.text)
    assert "A teacher's answers to the same items would show" in text
    assert "Fidelity and inherited errors" not in text
    accuracy = case.estimates.query("quantity == 'accuracy' and level == 'capability'")
    assert set(accuracy["estimate"]) <= set(page.data)


def test_bare_tables_are_enough(tmp_path):
    """One task, no chance, no format, no capability, no interval, no run facts."""
    outcomes = pd.DataFrame(
        {"model": ["a"] * 4 + ["b"] * 4, "task": "t", "item": list("1234") * 2, "score": [1, 1, 0, None, 1, 0, 0, 0]}
    )
    rows = [
        {"quantity": "accuracy", "level": "task", "group": "t", "model": m, "estimate": e}
        for m, e in [("a", 2 / 3), ("b", None)]
    ]
    html = write_report(
        tmp_path / "r.html", outcomes=outcomes, estimates=pd.DataFrame(rows), roles=Roles(("b",), teacher="a"), run={}
    ).read_text(encoding="utf-8")
    text = " ".join(Page(html).text)
    assert "b against a" in text
    assert "1 of 4 items" in text
    assert not re.search(r"\b(nan|NaN|None|null|<NA>)\b", text)
    empty = pd.DataFrame(columns=list(ESTIMATES.names))
    assert write_report(tmp_path / "e.html", outcomes=outcomes, estimates=empty, roles=Roles(("b",)), run={}).is_file()


def test_tasks_in_which_the_teacher_could_not_be_read_are_marked_and_explained(case, tmp_path):
    estimates = case.estimates.copy()
    over = (estimates.quantity == "cut_off") & (estimates.group == "chains") & (estimates.model == "teacher")
    assert over.sum() == 1
    estimates.loc[over, ["estimate", "reason"]] = [0.25, "unreadable_answers"]
    text = " ".join(Page(page_of(tmp_path, case, estimates=estimates)).text)
    assert re.search(
        r"set aside from comparisons with the teacher for battery, capability and domain:[^.]*chains", text
    )
    assert "Task chains, from comparisons with the teacher" in text
    assert "max_tokens" in text
    assert "†" in text


def test_different_prompting_is_flagged(case):
    models = case.models.assign(prompting=["plain", "chat template", "plain", "plain"])
    assert "prompted differently" in markdown(case, models=models)
    assert "prompted differently" not in markdown(case)


def test_aliased_formats_are_flagged():
    tasks = [("a", "knowledge", "d", "choose"), ("b", "reasoning", "d", "generate")]
    assert "Format and capability are aliased" in markdown(comparison(tasks=tasks, n_items=12))
    both = [*tasks, ("c", "knowledge", "d", "generate")]
    assert "aliased" not in markdown(comparison(tasks=both, n_items=12))


def test_labels_group_tasks_that_declare_nothing(tmp_path):
    case = comparison(tasks=[("a", None, None, "choose")], n_items=12)
    labels = validate(case.items[["task", "item"]].assign(capability="reasoning", source="classifier"), LABELS)
    html = page_of(tmp_path, case, labels=labels)
    assert '<p class="group-name">reasoning</p>' in html
    assert "12 of 12 items declare no capability; they were labelled from classifier (12)." in html
    assert '<p class="group-name">unlabelled</p>' in page_of(tmp_path, case)


def test_an_unknown_role_names_the_nearest_model(case, tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'student'"):
        page_of(tmp_path, case, roles=Roles(("studnet",)))
    with pytest.raises(TableError, match="estimates"):
        page_of(tmp_path, case, estimates=pd.DataFrame({"quantity": ["gap"]}))


def test_an_unwritable_place_is_a_mistake_of_the_user_and_changes_nothing(case, tmp_path):
    with pytest.raises(StoreError, match="cannot be written"):
        write_report(tmp_path / "absent" / "report.html", **case.arguments())


def test_markdown_holds_the_same_numbers(case):
    text = markdown(case)
    row = case.estimates.query("quantity == 'gap' and level == 'capability' and group == 'reasoning'").iloc[0]
    assert f"{100 * row['estimate']:.1f}" in text
    assert "## What was left out" in text


def test_the_page_shows_what_the_analysis_finds(single, tmp_path):
    page = Page(page_of(tmp_path, single))
    rows = single.estimates[(single.estimates["model"] == "student") & (single.estimates["status"] != "refused")]
    for level in ("battery", "capability", "task"):
        numbers = rows[
            (rows["level"] == level) & rows["quantity"].isin(["gap", "gap_closure", "retention", "fidelity"])
        ]
        assert len(numbers)
        assert set(numbers["estimate"]) <= set(page.data)
    contrasts = rows[rows["quantity"] == "capability_contrast"]
    assert len(contrasts)
    assert set(contrasts["estimate"]) <= set(page.data)


@pytest.mark.slow
def test_forty_tasks_and_six_models_stay_under_three_megabytes(tmp_path):
    tasks = [
        (f"task {i} " + "long name " * 7, ("knowledge", "reasoning", "mixed", None)[i % 4], f"d{i % 9}", "choose")
        for i in range(40)
    ]
    case = comparison(tasks=tasks, n_items=12, students=("s1", "s2", "s3"), word="word " * 200)
    path = write_report(tmp_path / "report.html", **case.arguments())
    assert path.stat().st_size < 3_000_000
    Page(path.read_text(encoding="utf-8"))
