"""Write the training file and the evaluation items of this study, disjoint parts of two benchmarks.

Run it as ``python make_data.py DATA TARGET``: DATA holds gauntlet/ and gsm8k/.
"""

import json
import random
import sys
from pathlib import Path

data, target = map(Path, sys.argv[1:])
target.mkdir(parents=True, exist_ok=True)


def lines(name: str) -> list[dict[str, str]]:
    """The objects of a JSONL file."""
    return [json.loads(line) for line in (data / name).read_text(encoding="utf-8").splitlines()]


def write(name: str, rows: list[dict[str, str]]) -> None:
    """A JSONL file in the target."""
    (target / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


rng = random.Random(1)
problems, clues = lines("gsm8k/train_3000.jsonl"), lines("gauntlet/knowledge/jeopardy_all.jsonl")
taught = rng.sample(range(len(problems)), 500)
told = rng.sample(range(1000, len(clues)), 700)
write(
    "train.jsonl",
    [
        {
            "item": f"gsm{n}",
            "task": "gsm8k",
            "capability": "reasoning",
            "prompt": f"Question: {problems[n]['question']}\nAnswer:",
            "completion": f" {problems[n]['answer']}",
        }
        for n in taught
    ]
    + [
        {
            "item": f"jeo{n}",
            "task": "jeopardy",
            "capability": "knowledge",
            "prompt": f"{clues[n]['context']}\nAnswer:",
            "completion": f" {clues[n]['continuation']}",
        }
        for n in told
    ],
)
write("problems.jsonl", [problems[n] for n in range(len(problems)) if n not in set(taught)])
write("clues.jsonl", clues[:1000])
