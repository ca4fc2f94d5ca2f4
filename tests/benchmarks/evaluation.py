"""capgap against lm-eval's `hf` at its best batch, on real items: one process, one thread, ratios.

    python -m tests.benchmarks.evaluation --model CKPT --data FOLDER [--tasks arc_easy commonsense_qa …] [--repeats 3]

For each task and number of solved examples: seconds of `hf` at batch 1, 8, 16 and 32 on a part of the items, which
chooses its best batch; seconds of `hf` at that batch and of capgap (tokenising, planning, proof and ledger included) on
all items, run alternately, by their medians; the ratio; the ratio of the floating-point operations that both do,
counted by torch; what share of that limit is reached; and the peak of the resident memory that each adds.
"""

import argparse
import gc
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from capgap.models import Ledger, load_model, parse_model, respond
from capgap.models.prefix_tree import TreeScorer
from tests.benchmarks.tasks import requests

BATCHES = (1, 8, 16, 32)
DEFAULT = ("arc_easy", "commonsense_qa", "openbook_qa", "piqa", "rolling", "gsm8k")
CHECKED = 1e-3  # nats


def main() -> None:
    """Print one line per task and number of solved examples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--tasks", nargs="+", default=DEFAULT)
    parser.add_argument("--shots", nargs="+", type=int, default=(0, 5))
    parser.add_argument("--items", type=int, default=200, help="of each task")
    parser.add_argument("--pilot", type=int, default=40, help="items on which the batch of hf is chosen")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    versions = f"torch {torch.__version__}, {_processor()}, float32, one thread"
    print(f"{Path(asked.model).name}; {versions}; medians of {asked.repeats}", flush=True)
    print(
        f"{'task':15} {'shots':>5} {'requests':>8}  " + " ".join(f"{f'hf {b}':>6}" for b in asked.batches) + "  "
        f"{'hf':>7} {'capgap':>7} {'ratio':>6} {'limit':>6} {'reached':>7}  {'hf MB':>6} {'capgap MB':>9}",
        flush=True,
    )
    lm = HFLM(pretrained=asked.model, device="cpu", dtype="float32", batch_size=1)
    ours = load_model(parse_model(f"{asked.model},chat_template=off"), device="cpu", dtype="float32")
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.tasks:
            for shots in asked.shots if name != "rolling" else (0,):
                few, all_of_them = (
                    requests(name, asked.data, Path(folder), items=items, shots=shots)
                    for items in (min(asked.pilot, asked.items), asked.items)
                )
                _compare(name, shots, few, all_of_them, lm, ours, asked, Path(folder))


def _compare(name: str, shots: int, few: Any, instances: Any, lm: Any, ours: Any, asked: Any, folder: Path) -> None:
    kind = instances[0].request_type
    runs = 0

    def hf(batch: int, asked: Any = instances) -> Any:
        lm.batch_size_per_gpu = batch
        return getattr(lm, kind)(asked, disable_tqdm=True)

    def capgap() -> Any:
        nonlocal runs
        runs += 1
        tree = ours.tree
        ours.lm.tree = TreeScorer(tree.model, tree.row_tokens)  # nothing is proven yet
        for instance in instances:
            instance.resps.clear()
        with Ledger(folder / f"{name}-{shots}-{runs}.sqlite") as ledger:
            return [own[0].value for own in respond(ours, instances, ledger)]

    single = {batch: _seconds(lambda batch=batch: hf(batch, few))[0] for batch in asked.batches}
    best = min(single, key=lambda batch: single[batch])
    theirs: list[float] = []
    own: list[float] = []
    for _ in range(asked.repeats):
        own.append(_seconds(capgap)[0])
        theirs.append(_seconds(lambda: hf(best))[0])
    expected, their_flops, their_memory = _counted(lambda: hf(best))
    answers, our_flops, our_memory = _counted(capgap)
    differ = [n for n, (a, b) in enumerate(zip(answers, expected, strict=True)) if not _same(a, b)]
    their_seconds, our_seconds = statistics.median(theirs), statistics.median(own)
    ratio, limit = their_seconds / our_seconds, their_flops / our_flops
    print(
        f"{name:15} {shots:5} {len(instances):8}  " + " ".join(f"{single[b]:6.1f}" for b in asked.batches) + "  "
        f"{their_seconds:7.1f} {our_seconds:7.1f} {ratio:6.2f} {limit:6.2f} {ratio / limit:7.2f}  "
        f"{their_memory / 1e6:6.0f} {our_memory / 1e6:9.0f}" + (f"  {len(differ)} differ" if differ else ""),
        flush=True,
    )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, str):
        return one == other
    if isinstance(one, tuple):
        return abs(one[0] - other[0]) <= CHECKED and one[1] == other[1]
    return abs(one - other) <= CHECKED


def _seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    gc.collect()
    started = time.perf_counter()
    result = run()
    return time.perf_counter() - started, result


def _counted(run: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, floating-point operations, and bytes by which the resident memory rose at its peak."""
    gc.collect()
    before = peak = _resident()
    over = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.005):
            peak = max(peak, _resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    mapping = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
    try:
        with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
            result = run()
    finally:
        over.set()
        watcher.join()
    return result, float(counter.get_total_flops()), float(peak - before)


def _attention(query: Any, key: Any, value: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
