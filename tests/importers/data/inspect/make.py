"""How the logs in this folder were made: inspect_ai 0.3.285 with its mock model, no network, our own questions.

    pip install inspect-ai==0.3.285 && python make.py OUT

Each log then got the name TASK-MODEL.eval.
"""

import sys
from typing import Any

from inspect_ai import Task
from inspect_ai import eval as run
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import Score, choice, includes, mean, scorer
from inspect_ai.solver import generate, multiple_choice, solver


@scorer(metrics={"tone": [mean()], "length": [mean()]})
def graded() -> Any:
    async def score(state: Any, target: Any) -> Score:
        return Score(value={"tone": 0.25, "length": 7.0}, answer=state.output.completion)

    return score


@solver
def stumble() -> Any:
    async def solve(state: Any, generate: Any) -> Any:
        if state.sample_id == 3:
            raise RuntimeError("out of paper")
        return state

    return solve


def colours() -> Task:
    options = ["red", "blue", "green"]
    questions = [Sample(input=f"Which is number {i}?", choices=options, target="ABC"[i % 3]) for i in range(4)]
    return Task(name="colours", dataset=MemoryDataset(questions), solver=multiple_choice(), scorer=choice())


def sums() -> Task:
    long = "x" * 150  # beyond 100 characters inspect keeps a text once, under its hash
    questions = [Sample(input=f"{i} plus one? {long if i == 1 else ''}", target=str(i + 1)) for i in range(4)]
    return Task(
        name="sums",
        dataset=MemoryDataset(questions),
        solver=[stumble(), generate()],
        scorer=[includes(), graded()],
        epochs=2,
        fail_on_error=False,
    )


def answers(name: str, texts: list[str], cut: str = "") -> Any:
    outputs = []
    for text in texts:
        output = ModelOutput.from_content(name, text, stop_reason="max_tokens" if text == cut else "stop")
        output.usage = ModelUsage(input_tokens=5, output_tokens=len(text.split()), total_tokens=5 + len(text.split()))
        outputs.append(output)
    return get_model(name, custom_outputs=outputs)


def main(out: str) -> None:
    said = {
        "mockllm/teacher": ["ANSWER: A", "ANSWER: B", "ANSWER: C", "ANSWER: A"],
        "mockllm/student": ["ANSWER: A", "ANSWER: A", "dunno", "ANSWER: A"],
    }
    for name, texts in said.items():
        run(colours(), model=answers(name, texts), log_dir=out)
        run(sums(), model=answers(name, ["1", "dunno", "3", "1", "2", "3"], "dunno"), log_dir=out, max_connections=1)


if __name__ == "__main__":
    main(sys.argv[1])
