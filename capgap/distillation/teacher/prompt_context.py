"""What a teacher sees and its student never does: a system prompt, solved examples (prompt distillation).

The student is trained on its own prompts alone, so that what the context brought about ends up in its weights.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from capgap.distillation.config import DistillConfig
from capgap.distillation.data.selection import TrainingExample
from capgap.errors import DistillError

if TYPE_CHECKING:
    from capgap.models import ModelSpec

__all__ = ["PromptContext", "teacher_spec"]


def teacher_spec(config: DistillConfig, word: str) -> "ModelSpec":
    """A teacher as it is asked: a model word of the file, with the system prompt of the context."""
    from capgap.models import parse_model

    spec = parse_model(word)
    system = config.context.system
    if config.supervision != "context" or system is None:
        return spec
    if spec.get("system_prompt"):
        raise DistillError(
            f"{config.name}: the teacher has a system_prompt of its own beside context.system. Keep one."
        )
    return replace(spec, options={**spec.options, "system_prompt": system})


class PromptContext:
    """How the teacher is asked an example.

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
        self.n = config.context.examples if config.supervision == "context" else 0
        self.solved: dict[str, list[tuple[str, str]]] = defaultdict(list)
        if not self.n:
            return
        for example in sorted(pool, key=lambda one: hashlib.sha256(f"{one.task}\0{one.item}".encode()).digest()):
            if example.messages is None and len(self.solved[example.task]) <= self.n:
                shown = example.shot or f"{example.asking.delimiter}{example.target}"
                self.solved[example.task].append((example.item, f"{example.prompt}{shown}".rstrip()))
        few = next((task for task, found in self.solved.items() if len(found) <= self.n), None)
        if few is not None:
            raise DistillError(
                f"{config.name}: context.examples asks for {self.n} solved examples besides the one that is asked, and "
                f"task {few!r} has {len(self.solved[few])}. Ask for fewer."
            )

    def prompt(self, example: TrainingExample) -> str:
        """The prompt with the solved examples before it; never with the example's own."""
        if not self.n:
            return example.prompt
        others = [text for item, text in self.solved[example.task] if item != example.item][: self.n]
        return "\n\n".join([*others, example.prompt])
