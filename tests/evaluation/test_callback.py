"""A battery on the checkpoints of a Trainer that knows nothing of capgap."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Trainer,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from capgap.errors import ModelError
from capgap.evaluation.callback import BatteryCallback
from capgap.store import RunDirectory
from tests.conftest import make_battery


def train(checkpoint: Path, out: Path, callback: BatteryCallback, *, tokenizer: bool = True) -> Trainer:
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    ids = torch.arange(4, 12)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(out), max_steps=4, save_steps=2, logging_steps=1, report_to="none", use_cpu=True,
            per_device_train_batch_size=1, disable_tqdm=True, learning_rate=1e-2,
        ),
        train_dataset=[{"input_ids": ids, "labels": ids}] * 4,
        processing_class=AutoTokenizer.from_pretrained(checkpoint) if tokenizer else None,
        callbacks=[callback],
    )  # fmt: skip
    trainer.train()
    return trainer


def test_every_checkpoint_is_evaluated_into_one_run(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    battery = make_battery(tmp_path / "battery", n=8)
    trainer = train(
        next(iter(checkpoints.values())),
        tmp_path / "out",
        BatteryCallback(str(battery), out=tmp_path / "run", device="cpu"),
    )
    history: list[dict[str, Any]] = trainer.state.log_history
    curve = [entry for entry in history if any(key.startswith("capgap/") for key in entry) and "loss" not in entry]
    assert [entry["step"] for entry in curve] == [2, 4]
    assert all(0 <= value <= 1 for entry in curve for key, value in entry.items() if key.startswith("capgap/"))
    run = RunDirectory(tmp_path / "run")
    assert {"step-2", "step-4"} <= set(run.facts["models"])


def test_what_cannot_be_evaluated_is_a_warning_and_the_training_goes_on(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    callback = BatteryCallback(str(tmp_path / "none.yaml"), out=tmp_path / "run", device="cpu")
    with pytest.warns(UserWarning, match=r"step \d was not evaluated: .*none.yaml"):
        trainer = train(next(iter(checkpoints.values())), tmp_path / "out", callback)
    assert trainer.state.global_step == 4


def test_evaluating_draws_no_random_number_of_the_training(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from capgap.evaluation import callback as module

    def greedy_for_numbers(*_: Any, **__: Any) -> Any:
        random.random()
        np.random.random()
        torch.rand(3)
        raise ModelError("enough")

    monkeypatch.setattr(module, "evaluate", greedy_for_numbers)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = (random.random(), np.random.random(), float(torch.rand(1)))
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    called = BatteryCallback("pocket", out=tmp_path / "run", device="cpu")
    with pytest.warns(UserWarning, match="enough"):
        called.on_save(
            TrainingArguments(output_dir=str(tmp_path)), TrainerState(is_world_process_zero=True), TrainerControl()
        )
    assert (random.random(), np.random.random(), float(torch.rand(1))) == expected
