"""Requests over real benchmark items: what the speed and the sameness of scoring are measured on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from capgap.battery import load_battery, prepare_battery

__all__ = ["requests"]

ROLLING = "gauntlet/reasoning/logi_qa.jsonl"


def requests(name: str, data: Path, folder: Path, *, items: int, shots: int) -> Sequence[Any]:
    """lm-eval's requests for one task.

    Parameters
    ----------
    name
        Of a task of real.yaml, or ``rolling``: whole passages, word for word.
    data
        What CAPGAP_SHARED_DATA names.
    folder
        Where the battery is written.
    items, shots
        Items of the task, and solved examples before each.
    """
    if name == "rolling":
        return _rolling(data, items)
    text = (Path(__file__).parent / "real.yaml").read_text(encoding="utf-8").replace("SHOTS", str(shots))
    kept = [line for line in text.splitlines() if not line.startswith("  - {name: ") or f"name: {name}," in line]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}-{shots}.yaml").write_text("\n".join(kept), encoding="utf-8")
    (task,) = prepare_battery(load_battery(folder / f"{name}-{shots}.yaml", data_root=data), limit=items)
    task.lm_task.build_all_requests(rank=0, world_size=1)
    return list(task.lm_task.instances)


def _rolling(data: Path, items: int) -> list[Any]:
    import json

    from lm_eval.api.instance import Instance

    lines = (data / ROLLING).read_text(encoding="utf-8").splitlines()
    texts = list(dict.fromkeys(json.loads(line)["query"] for line in lines))[:items]
    return [Instance("loglikelihood_rolling", {}, (text,), n, ("rolling", n, 1)) for n, text in enumerate(texts)]
