"""capgap's trainer against TRL's, on real texts: one thread, float32, no gradient checkpointing, ratios in one run.

    pip install --group benchmarks
    python -m tests.benchmarks.training --model SmolLM2-135M-Instruct --data FOLDER [--steps 6] [--repeats 2]

Each side runs in a process of its own, so that its peak memory is its own; sides take turns. All train all weights of
the model on the same examples, 8 in a step: half are GSM8K problems with their solutions, half are trivia with short
answers; only completions carry loss. What is compared is tokens that carry loss per second, the first step left out.

* ``sft``: TRL's SFTTrainer as it comes (padded batches). ``sft packed``: with its packing.
* ``gkd``: TRL's GKDTrainer with ``lmbda=0``, its teacher the same model; ours learns from a teacher's kept hidden
  states, whose one pass is timed apart.

The share of the matrix rate is the products of backbone, scored head and backward pass over the time of a step, over
the rate of a 2,048 x 2,048 x 2,048 product just before and after.
"""

import argparse
import json
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BATCH, LENGTH = 8, 1024
SIDES = ("sft", "sft packed", "capgap", "gkd", "capgap logits")
PAIRS = (("capgap", "sft"), ("capgap", "sft packed"), ("capgap logits", "gkd"))


def main() -> None:
    """Run all sides and print what they came to, or run one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--sides", nargs="+", default=SIDES, choices=SIDES)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side is not None:
        print(json.dumps(_run(asked)))
        return
    told: dict[str, list[dict[str, Any]]] = {side: [] for side in asked.sides}
    for _ in range(asked.repeats):
        for side in asked.sides:
            told[side].append(_started(side))
            print(f"{side}: {json.dumps(told[side][-1])}", file=sys.stderr, flush=True)
    _print(asked, told)


def _started(side: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.training", *sys.argv[1:], "--side", side]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _print(asked: Any, told: dict[str, list[dict[str, Any]]]) -> None:
    median = {
        side: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for side, runs in told.items()
    }
    some = next(iter(median.values()))
    print(
        f"{Path(asked.model).name}, {asked.steps} steps of {BATCH}, medians of {asked.repeats}; one thread, float32, "
        f"{platform.machine()}; 2,048³ product {some['rate']:.0f} GFLOP/s"
    )
    print(f"{'side':14} {'loss tokens/s':>13} {'carry loss':>10} {'peak MB':>8} {'of matrix rate':>14}")
    for side, one in median.items():
        share = f"{one['share']:.0%}" if one["share"] else ""
        print(
            f"{side:14} {one['per_second']:13.1f} {one['carrying']:10.0%} {one['peak_mb']:8.0f} {share:>14}"
            + (f"  teacher's pass {one['teacher_seconds']:.1f} s" if one["teacher_seconds"] else "")
        )
    for ours, theirs in PAIRS:
        if ours in median and theirs in median:
            a, b = median[ours], median[theirs]
            print(
                f"{ours} / {theirs}: {a['per_second'] / b['per_second']:.2f} x the loss tokens/s, "
                f"{a['peak_mb'] / b['peak_mb']:.2f} x the memory"
            )


def examples(data: Path, n: int) -> list[tuple[str, str]]:
    """Prompts and completions: solutions and short answers in turn, in a seeded order."""
    solved = [json.loads(line) for line in (data / "gsm8k/train_3000.jsonl").read_text().splitlines()]
    short = [json.loads(line) for line in (data / "gauntlet/knowledge/jeopardy_all.jsonl").read_text().splitlines()]
    drawn = random.Random(0)
    half = n // 2
    pairs = [(f"Question: {one['question']}\nAnswer:", f" {one['answer']}") for one in drawn.sample(solved, half)]
    pairs += [(f"{one['context']}\nAnswer:", f" {one['continuation']}") for one in drawn.sample(short, n - half)]
    drawn.shuffle(pairs)
    return pairs


def _run(asked: Any) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    pairs = examples(asked.data, BATCH * asked.steps)
    before = _rate()
    run = {"sft": _sft, "sft packed": _sft, "gkd": _gkd, "capgap": _capgap, "capgap logits": _capgap}[asked.side]
    with tempfile.TemporaryDirectory() as folder:
        measured = run(asked, pairs, Path(folder))
    seconds, tokens, carrying = measured["seconds"], measured["tokens"], measured["carrying"]
    rate = statistics.mean([before, _rate()])
    return {
        "per_second": sum(tokens[1:]) / sum(seconds[1:]),
        "carrying": sum(tokens) / carrying,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "rate": rate,
        "share": measured.get("flops", 0) / sum(seconds[1:]) / 1e9 / rate,
        "teacher_seconds": measured.get("teacher_seconds", 0.0),
    }


def _rate() -> float:
    import torch

    a, times = torch.ones(2048, 2048), []
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return 2 * 2048**3 / statistics.median(times[1:]) / 1e9


def _clock() -> tuple[Any, list[float]]:
    """A callback that takes the time of each optimizer step, and the times."""
    from transformers import TrainerCallback

    times: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *args: Any, **_: Any) -> None:
            self.started = time.perf_counter()

        def on_step_end(self, *args: Any, **_: Any) -> None:
            times.append(time.perf_counter() - self.started)

    return Clock(), times


_PLAIN: dict[str, Any] = {
    "per_device_train_batch_size": BATCH,
    "gradient_checkpointing": False,
    "bf16": False,
    "use_cpu": True,
    "report_to": "none",
    "save_strategy": "no",
    "logging_strategy": "no",
    "disable_tqdm": True,
    "max_length": LENGTH,
    "seed": 0,
    "dataloader_pin_memory": False,
}


def _watched(trainer: Any) -> tuple[list[int], list[int]]:
    """Tokens that carry loss, and positions that are computed, of each batch of a TRL trainer."""
    tokens: list[int] = []
    positions: list[int] = []
    original = trainer.compute_loss

    def counting(model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        tokens.append(int((inputs["labels"] != -100).sum()))
        positions.append(inputs["input_ids"].numel())
        return original(model, inputs, *args, **options)

    trainer.compute_loss = counting
    return tokens, positions


def _sft(asked: Any, pairs: list[tuple[str, str]], folder: Path) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    packing = asked.side == "sft packed"
    options = {**_PLAIN, "packing": packing, "completion_only_loss": True}
    if packing:
        options["per_device_train_batch_size"] = 1
    clock, times = _clock()
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(asked.model, dtype=torch.float32),
        args=SFTConfig(output_dir=str(folder), num_train_epochs=1, **options),
        train_dataset=Dataset.from_list([{"prompt": prompt, "completion": text} for prompt, text in pairs]),
        processing_class=AutoTokenizer.from_pretrained(asked.model),
        callbacks=[clock],
    )
    tokens, positions = _watched(trainer)
    trainer.train()
    return {"seconds": times, "tokens": tokens, "carrying": sum(positions)}


def _turns(prompt: str, completion: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion.strip()}]


def _gkd(asked: Any, pairs: list[tuple[str, str]], folder: Path) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    clock, times = _clock()
    trainer = GKDTrainer(
        model=AutoModelForCausalLM.from_pretrained(asked.model, dtype=torch.float32),
        teacher_model=AutoModelForCausalLM.from_pretrained(asked.model, dtype=torch.float32),
        args=GKDConfig(output_dir=str(folder), num_train_epochs=1, lmbda=0.0, beta=0.5, **_PLAIN),
        train_dataset=Dataset.from_list([{"messages": _turns(*pair)} for pair in pairs]),
        processing_class=AutoTokenizer.from_pretrained(asked.model),
        callbacks=[clock],
    )
    tokens, positions = _watched(trainer)
    trainer.train()
    return {"seconds": times, "tokens": tokens, "carrying": sum(positions)}


def _capgap(asked: Any, pairs: list[tuple[str, str]], folder: Path) -> dict[str, Any]:
    from capgap.distillation import DistillConfig, distill
    from capgap.distillation.training import trainer as training

    logits = asked.side == "capgap logits"
    file = folder / "examples.jsonl"
    lines = [{"messages": _turns(*p)} if logits else {"prompt": p[0], "completion": p[1]} for p in pairs]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    told: dict[str, Any] = {
        "name": "student",
        "student": f"{asked.model},chat_template=off",
        "data": {"file": str(file)},
        "supervision": "logits" if logits else "gold_answers",
        "training": {"epochs": 1, "batch_size": BATCH, "max_length": LENGTH, "lr": 2e-5},
    }
    if logits:
        told |= {"teacher": f"{asked.model},chat_template=off", "texts": "gold_answers"}
        told["objective"] = {"divergence": "jsd", "beta": 0.5}
    clock, times = _clock()
    tokens: list[int] = []
    positions: list[int] = []
    lengths: list[list[int]] = []
    original, judged = training._StepPlanTrainer.training_step, {"seconds": 0.0}

    def counting(self: Any, model: Any, inputs: Any, *args: Any) -> Any:
        tokens.append(sum(len(one.labels) for one in inputs))
        positions.append(sum(len(one.ids) for one in inputs))
        lengths.append([length for one in inputs for length in one.row.lengths])
        return original(self, model, inputs, *args)

    training._StepPlanTrainer.training_step = counting  # type: ignore[method-assign]
    built = training._StepPlanTrainer.__init__

    def with_clock(self: Any, *args: Any) -> None:
        built(self, *args)
        self.add_callback(clock)

    training._StepPlanTrainer.__init__ = with_clock  # type: ignore[method-assign]
    if logits:
        _time_teacher(judged)
    distill(DistillConfig.model_validate(told), folder / "out", device="cpu")
    flops = _flops(folder / "out", lengths[1:], sum(tokens[1:]), teacher=logits)
    return {
        "seconds": times,
        "tokens": tokens,
        "carrying": sum(positions),
        "flops": flops,
        "teacher_seconds": judged["seconds"],
    }


def _time_teacher(judged: dict[str, float]) -> None:
    from capgap.distillation.teacher import distributions

    original = distributions._SignalCacheWriter.run

    def timed(self: Any, *args: Any) -> None:
        started = time.perf_counter()
        original(self, *args)
        judged["seconds"] = time.perf_counter() - started

    distributions._SignalCacheWriter.run = timed  # type: ignore[method-assign]


def _flops(student: Path, steps: list[list[int]], loss_tokens: int, *, teacher: bool) -> float:
    """Products of backbone (causal attention's half of a square among them) and scored head, forward and backward.

    A backward pass is twice a forward one; the teacher's head is forward only.
    """
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(student)
    head = model.get_output_embeddings().weight.numel()
    backbone = sum(p.numel() for name, p in model.named_parameters() if "embed" not in name and "lm_head" not in name)
    config = model.config
    width = config.num_hidden_layers * config.num_attention_heads * config.head_dim
    lengths = [length for step in steps for length in step]
    attention = 6.0 * width * sum(length**2 for length in lengths)
    return 6.0 * backbone * sum(lengths) + attention + (8.0 if teacher else 6.0) * head * loss_tokens


if __name__ == "__main__":
    main()
