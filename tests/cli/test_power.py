import json

import pytest

from capgap.cli import main
from capgap.stats import GapDesign


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main(["power", *arguments])
    told = capsys.readouterr()
    return int(stopped.value.code or 0), told.out, told.err


def test_a_gap_has_its_power_and_what_it_needs(capsys):
    status, out, _ = run(capsys, "gap", "--gap", "0.03", "--tasks", "8", "--items", "200", "--json")
    told = json.loads(out)
    design = GapDesign(n_tasks=8, items_per_task=200)
    assert status == 0
    assert told["power_at_gap"] == pytest.approx(design.power(0.03))
    assert told["smallest_gap"] == pytest.approx(design.smallest_gap(0.8))
    assert GapDesign(n_tasks=8, items_per_task=told["needed"]["items"]).power(0.03) >= 0.8
    status, out, _ = run(capsys, "gap", "--gap", "0.03", "--tasks", "8", "--items", "200")
    assert "smallest visible gap: " in out
    assert "needed for 3 points, the rest as it is: items of each task: " in out


def test_what_no_number_of_items_mends_is_said(capsys):
    _, out, _ = run(capsys, "gap", "--gap", "0.02", "--tasks", "3", "--task-sd", "0.1")
    assert "items of each task: no number is enough" in out


def test_closures_and_data_costs_are_simulated(capsys):
    status, out, _ = run(
        capsys, "closure", "--knowledge", ".3,.7,.8", "--reasoning", ".2,.35,.8", "--tasks", "2", "--items", "60",
        "--replicates", "20", "--json",
    )  # fmt: skip
    assert status == 0
    assert json.loads(out)["power"] > 0.5
    status, out, _ = run(
        capsys, "data-cost", "--knowledge", "200", "--reasoning", "2000", "--sizes", "60,125,250,500,1000,2000,4000",
        "--items", "200", "--seeds", "1", "--replicates", "20",
    )  # fmt: skip
    assert status == 0
    assert "reasoning / knowledge = 10: power " in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("closure", "--knowledge", ".3,.7", "--reasoning", ".2,.3,.8"), "--knowledge .3,.7: expected 3 numbers"),
        (("closure", "--knowledge", ".3,.3,.3", "--reasoning", ".2,.3,.8"), "the teacher's above the base's"),
        (("gap", "--gap", "0.5", "--disagreement", "0.2"), "cannot be"),
        (("gap", "--seed-sd", "0.1"), "needs 3 seeds"),
        (("data-cost", "--knowledge", "1", "--reasoning", "2", "--sizes", "a"), "--sizes a: expected some numbers"),
        (("data-cost", "--knowledge", "1", "--reasoning", "2", "--sizes", "9", "--base", ".9"), "has no cost"),
        (("data-cost", "--knowledge", "0", "--reasoning", "2", "--sizes", "9"), "costs lie above zero"),
        (("data-cost", "--knowledge", "nan", "--reasoning", "2", "--sizes", "9"), "costs lie above zero"),
        (("data-cost", "--knowledge", "2", "--reasoning", "2", "--sizes", "9"), "are the same: there is no"),
        (
            ("data-cost", "--knowledge", "1", "--reasoning", "2", "--sizes", "9", "--seed-sd", "-1"),
            "standard deviation",
        ),
    ],
)
def test_a_mistake_ends_with_a_message_and_status_2(capsys, arguments, message):
    status, out, err = run(capsys, *arguments)
    assert status == 2
    assert message in err
    assert not out


def test_a_design_that_is_always_refused_says_why_and_stays_json(capsys):
    design = ("data-cost", "--knowledge", "300", "--reasoning", "2000", "--sizes", "125,250", "--replicates", "20")
    _, out, _ = run(capsys, *design)
    assert "100 % refused (most often: " in out
    assert "no study gave an interval" in out
    _, out, _ = run(capsys, *design, "--json")
    told = json.loads(out, parse_constant=pytest.fail)
    assert told["width"] is None
    assert told["reason"]
