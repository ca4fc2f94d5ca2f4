"""A battery of two tasks in the DESIGN format, and a way to spoil it."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

YAML = """\
name: mine
version: 1
description: capitals and sums
defaults: {num_fewshot: 0, seed: 0}
tasks:
  - name: capitals
    data: {file: data/capitals.jsonl}
    format: choose
    prompt: "Q: {{q}}\\nA:"
    choices: "{{options}}"
    target: "{{answer}}"
    capability: knowledge
    domain: geography
  - name: sums
    data: {file: data/sums.csv, train: data/more.csv}
    format: generate
    prompt: "Q: {{text}}\\nA:"
    target: "{{answer}}"
    score: numeric
    capability: reasoning
    rationale: "{{text}} so the answer is {{answer}}"
    covariates: {steps: "{{n_steps | int}}"}
"""

CAPITALS = [
    {"q": "Capital of Peru?", "options": ["Lima", "Quito", "Bogota"], "answer": "Lima"},
    {"q": "Capital of Chad?", "options": ["Niamey", "N'Djamena"], "answer": 1},
    {"q": "Capital of Laos?", "options": ["Hanoi", "Bangkok", "Vientiane"], "answer": "C"},
    *({"q": f"Which is {n}?", "options": [f"{n}", f"{n + 1}"], "answer": f"{n}"} for n in range(27)),
]

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the battery, with replaced texts and further files; gives the path of its YAML."""
    folder = tmp_path / "batteries"
    (folder / "data").mkdir(parents=True)

    def written(*changes: tuple[str, str], yaml: str = YAML, files: dict[str, str] | None = None) -> Path:
        (folder / "data" / "capitals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CAPITALS))
        for name, start in (("sums", 0), ("more", 100)):
            with (folder / "data" / f"{name}.csv").open("w", newline="") as handle:
                table = csv.writer(handle)
                table.writerow(["text", "answer", "n_steps"])
                table.writerows([f"{n} + 1 =", n + 1, 1 + n % 2] for n in range(start, start + 20))
        for name, text in (files or {}).items():
            (folder / name).write_text(text)
        for old, new in changes:
            assert old in yaml, f"{old!r} is not in the battery"
            yaml = yaml.replace(old, new)
        path = folder / "mine.yaml"
        path.write_text(yaml)
        return path

    return written
