"""lm-eval `Task` objects over rendered columns, and few-shot sampling that no other item changes.

Importing this module imports lm-eval; of the package, no other module does.
"""

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from functools import cache
from operator import itemgetter
from typing import Any, ClassVar

import datasets
from lm_eval.api.samplers import ContextSampler
from lm_eval.api.task import ConfigurableTask

from capgap.battery.answer_scoring import TEXT_SCORERS, score_generation
from capgap.battery.battery_spec import BatteryDefaults, CustomTask
from capgap.battery.extraction import extract_answer
from capgap.battery.items import Item


class FewshotSampler(ContextSampler):  # type: ignore[misc]
    """Few-shot sampler whose solved examples do not depend on how many items were asked before.

    ``fixed`` shows every item the same block; where an item stands in it, the next of the pool takes its place.
    ``per_item`` draws a block seeded by the item.
    """

    def __init__(self, pool: Sequence[dict[str, Any]], *, seed: int, per_item: bool) -> None:
        super().__init__(list(pool))
        self.seed, self.per_item = seed, per_item
        self.current: Any = None
        """The document being asked, set by `sampled`."""

    def set_rnd(self, rnd: int | None) -> "FewshotSampler":
        """Nothing: the block depends on the seed and the item alone."""
        return self

    def sample(self, n: int, eval_doc: Any = None, df: Any = None, **_: Any) -> list[Any]:
        """The `n` solved examples of the document being asked, never itself."""
        key = f"{self.seed}:{_doc_content(self.current)}" if self.per_item else f"{self.seed}"
        rng = random.Random(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest())
        asked_content = _doc_content(self.current)
        # Some more than needed, for what must be left out; all of them only where one document fills the pool.
        for size in (n + 8, len(self.df)):
            order = rng.sample(range(len(self.df)), min(size, len(self.df)))
            block = [doc for doc in (self.df[position] for position in order) if _doc_content(doc) != asked_content][:n]
            if len(block) == n:
                break
        assert len(block) == n, f"{len(block)} solved examples for {n}: the pool was not checked"
        return block


def _doc_content(doc: Any) -> str:
    """Identity of a document: the prompt of a rendered one, else all of it."""
    return str(doc["prompt"]) if isinstance(doc, dict) and "prompt" in doc and "shot" in doc else repr(doc)


@cache
def sampled(task_class: Any) -> Any:
    """Subclass of a task class with a chosen sample of documents and the same solved examples at every build.

    A subclass with one base, so that a task that lm-eval made can change into it.
    """

    class SampledTask(task_class):  # type: ignore[misc]
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
            if isinstance(sampler, FewshotSampler):
                sampler.current = doc
            return super().fewshot_context(doc, *args, **options)

    SampledTask.__name__ = SampledTask.__qualname__ = task_class.__name__
    return SampledTask


class _RenderedTask(sampled(ConfigurableTask)):  # type: ignore[misc]
    """A task over columns that capgap rendered: lm-eval's own Jinja never sees a battery's text."""

    CONFIG: ClassVar[None] = None

    def download(self, dataset_kwargs: Any = None, **_: Any) -> None:
        """Take the rendered documents."""
        self.dataset = self.config.custom_dataset()


def rendered_task(
    task: CustomTask,
    items: Sequence[Item],
    pool: Sequence[Item],
    *,
    num_fewshot: int,
    defaults: BatteryDefaults,
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
    num_fewshot
        Solved examples before each item.
    defaults
        The battery's: how they are chosen (`fewshot`) and the seed that draws them.
    delimiter
        Between prompt and answer.
    metrics
        Names of the metrics, the primary one first.
    """
    # A column has one type: where any item has several right answers, every item has a list of them.
    as_lists = any(len(item.gold if task.format == "choose" else item.targets) > 1 for item in (*items, *pool))
    shots = [_render_doc(item, as_lists) for item in pool]
    config: dict[str, Any] = {
        "task": items[0].task if items[0].variant == "default" else f"{items[0].task}@{items[0].variant}",
        "custom_dataset": lambda: {"test": datasets.Dataset.from_list([_render_doc(item, as_lists) for item in items])},
        "test_split": "test",
        # Functions, not names of columns: lm-eval would render a column's text once more.
        "doc_to_text": itemgetter("prompt"),
        "doc_to_target": itemgetter("right"),
        "target_delimiter": delimiter,
        "num_fewshot": num_fewshot,
        "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in metrics],
    }
    if shots:
        config["fewshot_config"] = {"samples": shots, "doc_to_target": itemgetter("shot")}
    if task.format == "choose":
        config |= {"output_type": "multiple_choice", "doc_to_choice": itemgetter("choices")}
    else:
        config |= _generate_config(task)
    lm_task = _RenderedTask(config=config)
    lm_task.fewshot_seed = defaults.seed
    if shots and defaults.fewshot != "lm_eval":
        lm_task.sampler = FewshotSampler(shots, seed=defaults.seed, per_item=defaults.fewshot == "per_item")
    return lm_task


def _render_doc(item: Item, as_lists: bool) -> dict[str, Any]:
    """The columns that lm-eval receives for an item: text and numbers, rendered."""
    gold_answer: Any = list(item.gold) if as_lists else item.gold[0] if item.gold else None
    if item.choices is None:
        gold_answer = list(item.targets) if as_lists else item.targets[0]
    document = {
        "item": item.item,
        "prompt": item.prompt,
        "right": gold_answer,
        "targets": list(item.targets),
        "shot": item.shot,
    }
    return document if item.choices is None else document | {"choices": list(item.choices)}


def _generate_config(task: CustomTask) -> dict[str, Any]:
    score_name, extract = task.score_name, task.extract
    config: dict[str, Any] = {
        "output_type": "generate_until",
        "generation_kwargs": {
            "until": list(task.stop if task.stop is not None else ["\n"]),
            "max_gen_toks": task.max_tokens or 256,
            "do_sample": bool(task.temperature),
            "temperature": float(task.temperature or 0.0),
        },
        "repeats": task.repeats or 1,
    }
    if score_name == "external":
        config["process_results"] = lambda doc, responses: {score_name: math.nan}  # scored later, from elsewhere
    elif score_name in TEXT_SCORERS:
        config["process_results"] = lambda doc, responses: {
            score_name: score_generation(score_name, responses[0], doc["targets"], extract)[0]
        }
    elif extract is not None:
        # Not lm-eval's own filter "regex", which nothing could stop.
        extraction_config = {"function": "custom", "filter_fn": _extraction_filter(extract)}
        config["filter_list"] = [{"name": "none", "filter": [extraction_config, {"function": "take_first"}]}]
    return config


def _extraction_filter(extract: str) -> Callable[[Sequence[Sequence[str]], Sequence[Any]], list[list[str]]]:
    """lm-eval filter: the responses to each document → the answer extracted from each, empty where there is none."""
    return lambda responses, docs: [[extract_answer(text, extract) or "" for text in texts] for texts in responses]
