"""Starter battery of `capgap battery new`: small, valid as it is, and with every key explained."""

import json
import re
from pathlib import Path

from capgap.battery.battery_spec import json_schema
from capgap.errors import BatteryError
from capgap.schema import atomic_write

_STARTER_FOLDER = Path(__file__).with_name("starter")
_BATTERY_NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}")


def write_starter_battery(path: Path | str) -> list[Path]:
    """Write a commented battery, and its data and schema into a folder of its name beside it.

    Parameters
    ----------
    path
        The battery file; its name becomes the battery's.

    Returns
    -------
    list
        The files written, the battery first.

    Raises
    ------
    BatteryError
        The file, or one that would stand beside it, exists already; or its name cannot be a battery's.
    StoreError
        The folder cannot be written.
    """
    path = Path(path)
    if path.suffix not in (".yaml", ".yml"):
        raise BatteryError(f"{path}: expected a name that ends in .yaml, for example {path.name or 'mine'}.yaml.")
    if not _BATTERY_NAME_PATTERN.fullmatch(path.stem):
        valid = re.sub(r"[^A-Za-z0-9_.\-]+", "-", path.stem).lstrip("-_.")[:100] or "mine"
        raise BatteryError(
            f"{path}: a battery's name has letters, digits and _ . - only. Did you mean {valid + path.suffix!r}?"
        )
    if not path.parent.is_dir():
        raise BatteryError(f"{path}: there is no folder {str(path.parent)!r}. Make it, or choose another place.")
    folder = path.parent / path.stem
    placeholders = {"FOLDER": path.stem, "NAME": path.stem, "FILE": path.name}
    starter_text = (_STARTER_FOLDER / "battery.yaml").read_text(encoding="utf-8")
    texts = {path: re.sub("|".join(placeholders), lambda match: placeholders[match.group()], starter_text)}
    for file in sorted(_STARTER_FOLDER.iterdir()):
        if file.suffix in (".jsonl", ".csv"):
            texts[folder / file.name] = file.read_text(encoding="utf-8")
    texts[folder / "schema.json"] = json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"
    existing_path = next((file for file in (path, folder, *texts) if file.exists() or file.is_symlink()), None)
    if existing_path is not None:
        raise BatteryError(
            f"{existing_path} exists already and is left as it is. Give another name: capgap battery new FILE."
        )
    folder.mkdir()
    # The battery last: where something fails on the way, no file promises data that are not there.
    for file, text in reversed(texts.items()):
        with atomic_write(file) as temporary_file:
            temporary_file.write_text(text, encoding="utf-8")
    return list(texts)
