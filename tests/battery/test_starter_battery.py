import re
from pathlib import Path

from pydantic import BaseModel

from capgap.battery import load_battery, read_yaml
from capgap.battery.battery_spec import BatteryDefaults, BatterySpec, CustomTask, DataSpec, LmEvalTask
from capgap.battery.starter_battery import write_starter_battery


def _switched_on(path: Path) -> str:
    """The file with every switched-off key in use."""
    return re.sub(r"(?m)^( *)#(?=\S)", r"\1", path.read_text())


def test_every_key_is_shown(tmp_path: Path) -> None:
    path = write_starter_battery(tmp_path / "mine.yaml")[0]
    models: tuple[type[BaseModel], ...] = (BatterySpec, BatteryDefaults, DataSpec, CustomTask, LmEvalTask)
    keys = {key for model in models for key in model.model_fields}
    shown = set(re.findall(r"(?m)^[ #-]*([a-z_]+):", path.read_text()))
    assert keys - shown == set()


def test_switched_off_keys_are_right_too(tmp_path: Path) -> None:
    path = write_starter_battery(tmp_path / "mine.yaml")[0]
    path.write_text(_switched_on(path))
    spec = read_yaml(path).validated(BatterySpec)
    assert [task.name for task in spec.tasks] == ["capitals", "sums", "sciq", "arc_easy"]
    assert len(load_battery(path).tasks) == 4


def test_training_items_are_none_of_the_evaluated(tmp_path: Path) -> None:
    write_starter_battery(tmp_path / "mine.yaml")
    rows = {name: (tmp_path / "mine" / f"{name}.csv").read_text().splitlines()[1:] for name in ("sums", "sums-train")}
    assert not set(rows["sums"]) & set(rows["sums-train"])


def test_the_answers_are_right(tmp_path: Path) -> None:
    from capgap.battery import prepare_battery

    write_starter_battery(tmp_path / "mine.yaml")
    for task in prepare_battery(load_battery(tmp_path / "mine.yaml")):
        for item in task.items:
            numbers = [int(number) for number in re.findall(r"\d+", item.prompt)]
            assert not numbers or item.targets == (str(sum(numbers)),)
