from pathlib import Path

import pytest

from capgap.battery import load_battery
from capgap.battery.battery_preview import BatteryEntryPreview, preview_battery
from capgap.errors import BatteryError

from .conftest import Write

FAR = """\
name: far
defaults: {num_fewshot: 3, limit: 100}
tasks:
  - lm_eval: ai2_arc
    size: about 3500
  - lm_eval: gsm8k
  - name: own
    data: {hub: org/set}
    format: choose
    prompt: "{{q}}"
    choices: [yes, no]
    target: "{{a}}"
    capability: "{{kind}}"
    size: 50
    length: 80
    variants: {open: {format: generate, prompt: "{{q}} Say it.", description: asked openly}}
"""


def _outline(tmp_path: Path, text: str = FAR, limit: int | None = None) -> dict[tuple[str, str], BatteryEntryPreview]:
    (tmp_path / "far.yaml").write_text(text)
    return {
        (entry.name, entry.variant): entry
        for entry in preview_battery(load_battery(tmp_path / "far.yaml"), limit=limit)
    }


def test_data_of_the_hub_are_told_without_being_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("fetched"))
    entries = _outline(tmp_path)
    assert len(entries) == 4
    assert not any(entry.is_local for entry in entries.values())


def test_a_group_is_one_entry_whose_limit_holds_for_each_task(tmp_path: Path) -> None:
    arc = _outline(tmp_path)["ai2_arc", "default"]
    assert (arc.n_tasks, arc.n_items, arc.is_approximate, arc.n_sampled) == (2, 3500, True, 200)
    assert (arc.format, arc.num_fewshot, arc.primary) == ("choose", 3, "acc,none")
    assert (arc.capability, arc.domain) == ("mixed", "science")


def test_what_nobody_said_is_unknown_and_costs_are_not_made_up(tmp_path: Path) -> None:
    gsm = _outline(tmp_path)["gsm8k", "default"]
    assert (gsm.n_items, gsm.n_sampled, gsm.stand_in) == (None, None, None)
    assert (gsm.num_fewshot, gsm.format, gsm.capability) == (5, "generate", "reasoning")


def test_a_variant_is_an_entry_of_its_own(tmp_path: Path) -> None:
    entries = _outline(tmp_path, limit=20)
    own, spoken = entries["own", "default"], entries["own", "open"]
    assert (own.format, spoken.format) == ("choose", "generate")
    assert (own.capability, own.n_sampled, spoken.reason) == (None, 20, "asked openly")
    assert own.stand_in is not None
    assert len(own.stand_in.items) == 20
    assert len(own.stand_in.items[0].prompt) == 80
    assert len(own.stand_in.items[0].choices or ()) == 2


def test_local_data_are_counted(write: Write) -> None:
    entries = preview_battery(load_battery(write()), limit=5)
    assert [(entry.name, entry.n_items, entry.n_sampled, entry.is_local) for entry in entries] == [
        ("capitals", 30, 5, True),
        ("sums", 20, 5, True),
    ]


def test_an_unknown_name_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(BatteryError, match=r"line 4.*'ai2_ark'\. Did you mean 'ai2_arc'"):
        _outline(tmp_path, FAR.replace("ai2_arc", "ai2_ark"))
