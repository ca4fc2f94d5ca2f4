"""lm-eval Task objects over rendered columns. Importing this module imports lm-eval; nothing else here does."""

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, ClassVar

import datasets
from lm_eval.api.samplers import ContextSampler
from lm_eval.api.task import ConfigurableTask

from capgap.battery.answer_scoring import GENERATION_SCORES, score_generation
from capgap.battery.battery_spec import DataTask
from capgap.battery.extraction import extract_answer
from capgap.battery.items import Item

__all__ = ["BlockSampler", "rendered_task", "sampled"]


class BlockSampler(ContextSampler):  # type: ignore[misc]
    """Solved examples that do not depend on how many items were asked before.

    ``fixed`` shows every item the same block; where an item stands in it, the next of the pool takes its place.
    ``per_item`` draws a block seeded by the item.
    """

    def __init__(self, pool: Sequence[dict[str, Any]], *, seed: int, per_item: bool) -> None:
        super().__init__(list(pool))
        self.seed, self.per_item = seed, per_item
        self.current: Any = None
        """The document being asked, set by `sampled`."""

    def set_rnd(self, rnd: int | None) -> "BlockSampler":
        """Nothing: the block depends on the seed and the item alone."""
        return self

    def sample(self, n: int, eval_doc: Any = None, df: Any = None, **_: Any) -> list[Any]:
        """The `n` solved examples of the document being asked, never itself."""
        key = f"{self.seed}:{_content(self.current)}" if self.per_item else f"{self.seed}"
        rng = random.Random(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest())
        own = _content(self.current)
        # Some more than needed, for what must be left out; all of them only where one document fills the pool.
        for size in (n + 8, len(self.df)):
            order = rng.sample(range(len(self.df)), min(size, len(self.df)))
            block = [doc for doc in (self.df[position] for position in order) if _content(doc) != own][:n]
            if len(block) == n:
                break
        assert len(block) == n, f"{len(block)} solved examples for {n}: the pool was not checked"
        return block


def _content(doc: Any) -> str:
    """What makes two documents one: the prompt of a rendered one, else all of it."""
    return str(doc["prompt"]) if isinstance(doc, dict) and "prompt" in doc and "shot" in doc else repr(doc)


@cache
def sampled(task_class: Any) -> Any:
    """The task class, with documents that we chose and the same solved examples at every build.

    A subclass with one base, so that a task that lm-eval made can change into it.
    """

    class Sampled(task_class):  # type: ignore[misc]
        sampled_docs: Any = None
        fewshot_seed = 0

        @property
        def eval_docs(self) -> Any:
            """The chosen documents in place of the whole split."""
            return self.sampled_docs if self.sampled_docs is not None else super().eval_docs

        def build_all_requests(self, **options: Any) -> None:
            """As lm-eval does, with its sampler started anew: the second model reads what the first one read."""
            self.set_fewshot_seed(seed=self.fewshot_seed)
            super().build_all_requests(**options)

        def fewshot_context(self, doc: Any, *args: Any, **options: Any) -> Any:
            """As lm-eval does; the sampler learns which document is asked."""
            sampler = getattr(self, "sampler", None)
            if isinstance(sampler, BlockSampler):
                sampler.current = doc
            return super().fewshot_context(doc, *args, **options)

    Sampled.__name__ = Sampled.__qualname__ = task_class.__name__
    return Sampled


class _RenderedTask(sampled(ConfigurableTask)):  # type: ignore[misc]
    """A task over columns that capgap rendered: lm-eval's own Jinja never sees a battery's text."""

    CONFIG: ClassVar[None] = None

    def download(self, dataset_kwargs: Any = None, **_: Any) -> None:
        """Take the rendered documents."""
        self.dataset = self.config.custom_dataset()


def rendered_task(
    task: DataTask,
    items: Sequence[Item],
    pool: Sequence[Item],
    *,
    num_fewshot: int,
    fewshot: str,
    seed: int,
    delimiter: str,
    metrics: Sequence[str],
) -> Any:
    """An lm-eval Task whose document `i` is ``items[i]``.

    Parameters
    ----------
    task
        The task, or a variant of it.
    items
        The items to ask.
    pool
        Items that may serve as solved examples; `num_fewshot` and one more at least, or none.
    num_fewshot, fewshot, seed
        How many, chosen how (``fixed``, ``per_item``, ``lm_eval``), drawn by what.
    delimiter
        Between prompt and answer.
    metrics
        Names of the metrics, the primary one first.
    """
    several = (
        any(len(item.gold) > 1 for item in (*items, *pool))
        if task.format == "choose"
        else any(len(item.targets) > 1 for item in (*items, *pool))
    )
    shots = [_document(item, several) for item in pool]
    config: dict[str, Any] = {
        "task": items[0].task if items[0].variant == "default" else f"{items[0].task}@{items[0].variant}",
        "custom_dataset": lambda: {"test": datasets.Dataset.from_list([_document(item, several) for item in items])},
        "test_split": "test",
        "doc_to_text": _prompt,
        "target_delimiter": delimiter,
        "num_fewshot": num_fewshot,
        "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in metrics],
    }
    if shots:
        config["fewshot_config"] = {"samples": shots, "doc_to_target": _shot}
    config |= _choose() if task.format == "choose" else _generate(task)
    made = _RenderedTask(config=config)
    made.fewshot_seed = seed
    if shots and fewshot != "lm_eval":
        made.sampler = BlockSampler(shots, seed=seed, per_item=fewshot == "per_item")
    return made


def _document(item: Item, several: bool) -> dict[str, Any]:
    """The columns that lm-eval receives: text and numbers, rendered."""
    right: Any = list(item.gold) if several else item.gold[0] if item.gold else None
    if item.choices is None:
        right = list(item.targets) if several else item.targets[0]
    document = {
        "item": item.item,
        "prompt": item.prompt,
        "right": right,
        "targets": list(item.targets),
        "shot": item.shot,
    }
    return document if item.choices is None else document | {"choices": list(item.choices)}


def _prompt(doc: dict[str, Any]) -> str:
    return str(doc["prompt"])


def _right(doc: dict[str, Any]) -> Any:
    return doc["right"]


def _shot(doc: dict[str, Any]) -> str:
    return str(doc["shot"])


def _choices(doc: dict[str, Any]) -> list[str]:
    return list(doc["choices"])


def _choose() -> dict[str, Any]:
    return {"output_type": "multiple_choice", "doc_to_target": _right, "doc_to_choice": _choices}


def _generate(task: DataTask) -> dict[str, Any]:
    kind, extract = task.scoring, task.extract
    config: dict[str, Any] = {
        "output_type": "generate_until",
        "doc_to_target": _right,
        "generation_kwargs": {
            "until": list(task.stop if task.stop is not None else ["\n"]),
            "max_gen_toks": task.max_tokens or 256,
            "do_sample": bool(task.temperature),
            "temperature": float(task.temperature or 0.0),
        },
        "repeats": task.repeats or 1,
    }
    if kind == "external":
        config["process_results"] = lambda doc, found: {kind: math.nan}  # the score comes later, from elsewhere
    elif kind in GENERATION_SCORES:
        config["process_results"] = lambda doc, found: {
            kind: score_generation(kind, found[0], doc["targets"], extract)[0]
        }
    elif extract is not None:
        # Not lm-eval's own filter "regex", which nothing could stop.
        read = {"function": "custom", "filter_fn": _reader(extract)}
        config["filter_list"] = [{"name": "none", "filter": [read, {"function": "take_first"}]}]
    return config


def _reader(extract: str) -> Callable[[Sequence[Sequence[str]], Sequence[Any]], list[list[str]]]:
    """Answers of each document to what the expression finds in them; empty where it finds nothing."""
    return lambda answers, docs: [[extract_answer(answer, extract) or "" for answer in own] for own in answers]
