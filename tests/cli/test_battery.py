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
    assert set(battery.commands) == {"list", "show", "check", "new", "schema", "fetch"}
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


def test_every_key_of_the_schema_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    schema = json.loads(_run(capsys, "schema")[1])
    models = {"BatterySpec": schema, **schema["$defs"]}
    told = {f"{model}.{key}": value for model, part in models.items() for key, value in part["properties"].items()}
    bare = [key for key, value in told.items() if "description" not in value]
    assert bare == []
    assert all(part["additionalProperties"] is False for part in models.values())


def test_new_writes_a_battery_that_is_right_as_it_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = _run(capsys, "new", "2026.yaml")
    assert (status, err) == (0, "Next: capgap battery check 2026.yaml\n")
    assert sorted(out.split()) == sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    status, out, _ = _run(capsys, "check", "2026.yaml")
    assert status == 0
    assert "3 tasks, 24 items, no mistake" in out
    assert "note:" not in out
    _, schema, _ = _run(capsys, "schema")
    assert (tmp_path / "2026" / "schema.json").read_text() == schema


def test_new_overwrites_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine.yaml", "mine"):
        (tmp_path / name).write_text("my work")
        status, out, err = _run(capsys, "new")
        assert (status, out) == (2, "")
        assert f"{name} exists already and is left as it is" in err
        assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(name, "my work")]
        (tmp_path / name).unlink()
    (tmp_path / "mine.yaml").symlink_to(tmp_path / "absent.yaml")
    assert _run(capsys, "new")[0] == 2
    assert not (tmp_path / "absent.yaml").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine", "ends in .yaml, for example mine.yaml"),
        ("my battery.yaml", "Did you mean 'my-battery.yaml'"),
        ("absent/mine.yaml", "there is no folder 'absent'"),
    ],
)
def test_new_refuses_what_could_not_be_read_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = _run(capsys, "new", name)
    assert status == 2
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_show_tells_sizes_labels_and_reasons_of_a_local_battery(
    capsys: pytest.CaptureFixture[str], tiny_battery: Path
) -> None:
    status, out, _ = _run(capsys, "show", str(tiny_battery), "--limit", "10")
    assert status == 0
    assert "colours_choose: 10 of 24 items, knowledge, colours, choose, acc,none, 0 shots" in out
    assert "Asked: 20 items; knowledge 1 tasks with 10 items, reasoning 1 tasks with 10 items." in out
    assert "135M under a minute" in out


def test_show_tells_of_hub_data_what_the_file_says(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = _run(capsys, "show", "core", "--json", "--size", "1.5B", "--size", "70b")
    assert status == 0
    shown = json.loads(out)
    rows = {row["name"]: row for row in shown["tasks"]}
    assert len(rows) == 34
    assert (rows["arc_easy"]["n_items"], rows["arc_easy"]["n_asked"], rows["arc_easy"]["about"]) == (2376, 500, False)
    assert (rows["logiqa2"]["n_items"], rows["logiqa2"]["about"]) == (1570, True)
    assert rows["gsm8k"]["num_fewshot"] == 5
    assert all(row["why"] and row["source"] and row["capability"] and not row["here"] for row in rows.values())
    minutes = shown["cost"]["minutes"]
    assert 0 < minutes["1.5B"] < minutes["70b"]


def test_show_estimates_the_minutes_of_a_model(capsys: pytest.CaptureFixture[str], tiny_battery: Path) -> None:
    status, out, _ = _run(capsys, "show", str(tiny_battery), "--model", "microworld:small", "--device", "cpu")
    assert status == 0
    assert "Time on this cpu, good to a factor of about two: small under a minute." in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "huge"], "expected a number of parameters such as 135M"),
        (["--size", "0M"], "expected a number of parameters"),
        (["--model", "microworld:smal"], "Did you mean 'small'"),
        (["--model", "vllm:pretrained=x"], "Give --size"),
    ],
)
def test_show_refuses_what_it_cannot_estimate(
    capsys: pytest.CaptureFixture[str], tiny_battery: Path, arguments: list[str], message: str
) -> None:
    status, _, err = _run(capsys, "show", str(tiny_battery), *arguments)
    assert status == 2
    assert message in err


def test_show_prints_nothing_that_a_terminal_obeys(capsys: pytest.CaptureFixture[str], tiny_battery: Path) -> None:
    text = tiny_battery.read_text()
    tiny_battery.write_text(text.replace("description: Twenty-four items", 'description: "\\e[31mTwenty" #'))
    status, out, _ = _run(capsys, "show", str(tiny_battery))
    assert status == 0
    assert "31mTwenty" in out
    assert "\x1b" not in out


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


def test_fetch_counts_and_names_what_the_file_says_otherwise(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    rows = datasets.Dataset.from_list([{"q": f"{n} + 1", "a": n + 1} for n in range(7)])
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows)
    task = "{name: NAME, data: {hub: org/set}, format: generate, prompt: '{{q}}', target: '{{a}}', size: SIZE}"
    said = {"a": "7", "b": "9", "c": "about 9"}
    tasks = ", ".join(task.replace("NAME", name).replace("SIZE", size) for name, size in said.items())
    (tmp_path / "far.yaml").write_text(f"name: far\ntasks: [{tasks}]\n")
    status, out, err = _run(capsys, "fetch", str(tmp_path / "far.yaml"))
    assert (status, out) == (0, "far: all data are in the cache.\n")
    assert err.splitlines() == ["a: 7 items", "b: 7 items, but size: 9 in far.yaml", "c: 7 items"]


def test_fetch_without_a_network_says_so_and_tries_every_task(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    task = "{name: NAME, data: {hub: org/set}, format: generate, prompt: '{{q}}', target: '{{a}}'}"
    tasks = ", ".join(task.replace("NAME", name) for name in "ab")
    (tmp_path / "far.yaml").write_text(f"name: far\ntasks: [{tasks}]\n")
    status, _, err = _run(capsys, "fetch", str(tmp_path / "far.yaml"))
    assert status == 2
    assert "a: failed\nb: failed\n" in err
    assert "2 of 2 tasks could not be fetched" in err
    assert "HF_HUB_OFFLINE" in err
