"""Prompt distillation: the system prompt and few-shot examples that a teacher sees and its student never does.

The student is trained on its own prompts alone, so that what the context brought about ends up in its weights.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from capgap.distillation.config import DistillConfig
from capgap.distillation.data.selection import TrainingExample
from capgap.errors import DistillError
from capgap.models import ModelSpec, parse_model


def teacher_spec(config: DistillConfig, word: str) -> ModelSpec:
    """The model spec of a teacher of the file, with the system prompt of the context."""
    spec = parse_model(word)
    system = config.context.system
    if system is None:
        return spec
    if spec.get("system_prompt"):
        raise DistillError(f"{config.name}: the teacher has a system_prompt beside context.system. Keep one.")
    return replace(spec, options={**spec.options, "system_prompt": system})


class PromptBuilder:
    """The teacher's prompt for an example: solved examples, and the prompt itself.

    Parameters
    ----------
    config
        Says how many solved examples stand before each prompt.
    pool
        Where they are drawn from: the first of their task in the order of a hash, whatever a student learns of them.

    Raises
    ------
    DistillError
        A task has too few.
    """

    def __init__(self, config: DistillConfig, pool: Iterable[TrainingExample]) -> None:
        self.n_shots = config.context.examples
        # Task → (item, solved example); one more than is shown, since an example is never shown to itself.
        self._solved: dict[str, list[tuple[str, str]]] = defaultdict(list)
        if not self.n_shots:
            return
        for example in sorted(pool, key=lambda one: hashlib.sha256(f"{one.task}\0{one.item}".encode()).digest()):
            if example.messages is None and len(self._solved[example.task]) <= self.n_shots:
                answer = example.shot or f"{example.task_format.delimiter}{example.target}"
                self._solved[example.task].append((example.item, f"{example.prompt}{answer}".rstrip()))
        sparse_task = next((task for task, examples in self._solved.items() if len(examples) <= self.n_shots), None)
        if sparse_task is not None:
            raise DistillError(
                f"{config.name}: context.examples asks for {self.n_shots} solved examples besides the one that is "
                f"asked, and task {sparse_task!r} has {len(self._solved[sparse_task])}. Ask for fewer."
            )

    def prompt(self, example: TrainingExample) -> str:
        """The prompt with the solved examples before it; never with the example's own."""
        if not self.n_shots:
            return example.prompt
        shot_texts = [text for item, text in self._solved[example.task] if item != example.item][: self.n_shots]
        return "\n\n".join([*shot_texts, example.prompt])
