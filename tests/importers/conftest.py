"""Real results of lm-eval, and of capgap for the same models and items."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import make_battery, make_checkpoint


@dataclass(frozen=True)
class RealRun:
    """What lm-eval wrote about two tiny models, and where those are."""

    folder: Path
    """Holds a folder a model, as `EvaluationTracker` makes them."""
    checkpoints: dict[str, Path]
    battery: Path

    def samples(self, model: str, task: str) -> list[dict[str, Any]]:
        """The records that lm-eval wrote."""
        (path,) = self.folder.glob(f"*{model}/samples_{task}_*.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()]


def run_lm_eval(out: Path, checkpoint: Path, tasks: Any, manager: Any, **options: Any) -> None:
    """`simple_evaluate` over a checkpoint, saved as lm-eval's command line saves it."""
    import lm_eval
    from lm_eval.loggers import EvaluationTracker

    tracker = EvaluationTracker(output_path=str(out))
    results = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(checkpoint), "dtype": "float32"},
        device="cpu",
        batch_size=3,
        tasks=tasks,
        task_manager=manager,
        bootstrap_iters=0,
        log_samples=True,
        fewshot_random_seed=3,
        evaluation_tracker=tracker,
        **options,
    )
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for task, records in samples.items():
        tracker.save_results_samples(task_name=task, samples=records)


def make_real_run(root: Path, *, chat: bool) -> RealRun:
    """Two tiny models over the tiny battery, by lm-eval itself."""
    from lm_eval.tasks import TaskManager

    from capgap.battery import load_battery, prepare_battery

    battery = make_battery(root / "battery")
    names = ("teacher", "student")
    checkpoints = {name: make_checkpoint(root / name, seed=5 + n, chat=chat) for n, name in enumerate(names)}
    for checkpoint in checkpoints.values():
        tasks = [prepared.lm_task for prepared in prepare_battery(load_battery(battery))]
        manager = TaskManager(include_defaults=False)
        run_lm_eval(root / "out", checkpoint, tasks, manager, apply_chat_template=chat, fewshot_as_multiturn=chat)
    return RealRun(root / "out", checkpoints, battery)


@pytest.fixture(scope="session")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> RealRun:
    return make_real_run(tmp_path_factory.mktemp("lm_eval"), chat=False)


@pytest.fixture(scope="session")
def real_chat_run(tmp_path_factory: pytest.TempPathFactory) -> RealRun:
    return make_real_run(tmp_path_factory.mktemp("lm_eval_chat"), chat=True)
