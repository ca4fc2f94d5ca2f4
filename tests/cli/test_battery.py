import json
from pathlib import Path

import pytest

from capgap.cli import main
from capgap.cli.battery import battery


def _run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["battery", *arguments])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_every_subcommand_has_help() -> None:
    assert set(battery.commands) == {"list", "check", "schema", "fetch"}
    assert all(command.help for command in battery.commands.values())


def test_list_names_the_shipped_batteries(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = _run(capsys, "list", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert status == 0
    assert {"core", "pocket", "microworld"} <= set(rows)
    assert rows["core"]["items"] is None
    assert rows["pocket"]["items"] > 500


def test_schema_is_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = _run(capsys, "schema")
    assert status == 0
    assert set(json.loads(out)["required"]) == {"name", "tasks"}


def test_check_shows_prompts_safely_and_proves_the_scorer(
    capsys: pytest.CaptureFixture[str], tiny_battery: Path
) -> None:
    items = tiny_battery.parent / "items.jsonl"
    items.write_text(items.read_text().replace("one plus", "\\u001b[31mone plus"))
    status, out, _ = _run(capsys, "check", str(tiny_battery))
    assert status == 0
    assert out.count("right answers 1.00") == 2
    assert "\x1b" not in out
    assert "'Q : \\x1b[31mone plus" in out
    assert "2 tasks, 48 items, no mistake" in out


def test_a_mistake_ends_with_two_and_no_traceback(capsys: pytest.CaptureFixture[str], tiny_battery: Path) -> None:
    tiny_battery.write_text(tiny_battery.read_text().replace("{{q}}", "{{question}}"))
    status, out, err = _run(capsys, "check", str(tiny_battery))
    assert status == 2
    assert "no field 'question'" in out
    assert "2 task(s) cannot be used: colours_choose, colours_generate" in err
    assert "Traceback" not in err


def test_fetch_of_a_local_battery_needs_nothing(capsys: pytest.CaptureFixture[str], tiny_battery: Path) -> None:
    assert _run(capsys, "fetch", str(tiny_battery))[:2] == (0, "tiny needs no download.\n")
