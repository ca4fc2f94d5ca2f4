"""`capgap power`: what a design can see before anything runs."""

import math
from dataclasses import asdict
from typing import Any

import click

from capgap.cli.options import json_option
from capgap.cli.printing import print_json
from capgap.errors import UsageError

__all__ = ["power"]

_UNIT_INTERVAL = click.FloatRange(0, 1)
_target_power_option = click.option(
    "--power", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.8, show_default=True,
    help="Probability with which it should be found.",
)  # fmt: skip
_n_tasks_option = click.option(
    "--tasks", "n_tasks", type=click.IntRange(min=1), default=1, show_default=True, help="Tasks, which count equally."
)
_items_per_task_option = click.option(
    "--items", "items_per_task", type=click.IntRange(min=2), default=100, show_default=True, help="Items of each task."
)
_cluster_size_option = click.option(
    "--cluster-size", type=click.IntRange(min=1), default=1, show_default=True,
    help="Items that stand or fall together (of one passage, one template).",
)  # fmt: skip
_seed_option = click.option("--seed", type=int, default=0, show_default=True, help="Of the simulation.")
_replicates_option = click.option(
    "--replicates", "n_replicates", type=click.IntRange(min=20), default=200, show_default=True,
    help="Studies that are simulated.",
)  # fmt: skip
_MAX_LOG_WIDTH = math.log(1e6)
"""A ratio's interval that spans more has an end that nothing bounds."""


@click.group(invoke_without_command=False)
def power() -> None:
    """Items, clusters, tasks and seeds that a finding needs, and the smallest one that a design can see.

    \b
      capgap power gap --gap 0.03 --tasks 8 --items 200
      capgap power closure --knowledge .3,.7,.8 --reasoning .2,.35,.8 --tasks 4 --items 100
      capgap power data-cost --knowledge 300 --reasoning 2000 --sizes 125,250,500,1000,2000,4000,8000
    """


@power.command("gap")
@click.option("--gap", type=_UNIT_INTERVAL, help="The gap that matters, in score: 0.03 is three points.")
@_n_tasks_option
@_items_per_task_option
@_cluster_size_option
@click.option("--icc", type=_UNIT_INTERVAL, default=0.0, help="Correlation of the differences within a cluster.")
@click.option(
    "--task-sd", type=_UNIT_INTERVAL, default=0.0, help="How gaps differ between tasks: speaks of tasks like these."
)
@click.option("--seeds", "n_seeds", type=click.IntRange(min=1), default=1, show_default=True,
              help="Training seeds of the recipe.")  # fmt: skip
@click.option(
    "--seed-sd", type=_UNIT_INTERVAL, default=0.0, help="How gaps differ between seeds: speaks of the recipe."
)
@click.option(
    "--disagreement", type=_UNIT_INTERVAL, default=0.3, show_default=True,
    help="Share of the items that exactly one of the two models answers rightly.",
)  # fmt: skip
@_target_power_option
@json_option
def gap_command(gap: float | None, power: float, as_json: bool, **options: Any) -> None:
    """A gap between teacher and student, by formula."""
    from capgap.stats import GapDesign, size_for_gap

    design = GapDesign(**options)
    smallest_gap = design.smallest_gap(power)
    numbers: dict[str, Any] = {"smallest_gap": smallest_gap, "power": power}
    lines = [
        f"smallest visible gap: {100 * smallest_gap:.1f} points (power {power:.2f})"
        if not math.isnan(smallest_gap)
        else "no gap that could be is visible with this design"
    ]
    if gap is not None:
        power_to_see_gap = design.power(gap)
        numbers |= {"gap": gap, "power_at_gap": power_to_see_gap, "needed": {}}
        warning = f" ({design.exact_test_caution})" if design.exact_test_caution else ""
        lines.append(f"power to see {100 * gap:g} points: {power_to_see_gap:.2f}{warning}")
        has_clusters, has_seed_spread = design.cluster_size > 1, design.seed_sd > 0
        for unit in ("items", *["clusters"] * has_clusters, "tasks", *["seeds"] * has_seed_spread):
            needed_size = size_for_gap(gap, design, unit, power=power)  # type: ignore[arg-type]
            numbers["needed"][unit] = needed_size.n
            per_task_text = " of each task" if unit in ("items", "clusters") else ""
            n_needed_text = f"{needed_size.n:,}" if needed_size.n is not None else "no number is enough"
            n_needed_text += f" ({needed_size.note})" if needed_size.note else ""
            lines.append(f"needed for {100 * gap:g} points, the rest as it is: {unit}{per_task_text}: {n_needed_text}")
    _print_power_result(numbers, lines, as_json)


@power.command()
@click.option("--knowledge", required=True, metavar="B,S,T", help="Accuracies of base, student and teacher.")
@click.option("--reasoning", required=True, metavar="B,S,T", help="Likewise.")
@_n_tasks_option
@_items_per_task_option
@_cluster_size_option
@click.option(
    "--of-cluster", type=_UNIT_INTERVAL, default=0.0, help="Share of an answer's variance that is its cluster's."
)
@_replicates_option
@_seed_option
@_target_power_option
@json_option
def closure(
    knowledge: str, reasoning: str, items_per_task: int, seed: int, power: float, as_json: bool, **options: Any
) -> None:
    """The difference of two gap closures, knowledge minus reasoning, by simulation."""
    import numpy as np

    from capgap.stats import CapabilityAccuracies, closure_difference_power, needed_for_closure_difference

    on_knowledge, on_reasoning = (
        CapabilityAccuracies(*_parse_numbers(text, option, 3))
        for text, option in ((knowledge, "--knowledge"), (reasoning, "--reasoning"))
    )
    rng = np.random.default_rng(seed)
    simulated = closure_difference_power(on_knowledge, on_reasoning, items_per_task=items_per_task, rng=rng, **options)
    needed_size = needed_for_closure_difference(on_knowledge, on_reasoning, seed=seed, power=power, **options)
    lines = [
        f"closures {100 * on_knowledge.gap_closure:.0f} % and {100 * on_reasoning.gap_closure:.0f} %: {simulated}",
        f"median width of the interval: {100 * simulated.width:.0f} points",
        f"items of each task for a power of {power:.2f}: "
        + (f"{needed_size.n:,}" if needed_size.n is not None else f"no number is enough ({needed_size.note})"),
    ]
    _print_power_result({**asdict(simulated), "needed_items": needed_size.n}, lines, as_json)


@power.command("data-cost")
@click.option(
    "--knowledge", type=float, required=True, metavar="N", help="Examples that knowledge is supposed to cost."
)
@click.option("--reasoning", type=float, required=True, metavar="N", help="Likewise.")
@click.option(
    "--sizes", required=True, metavar="N,N,…", help="Unique examples of a capability in the planned students."
)
@click.option(
    "--seeds", "n_seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Students of each size."
)
@click.option(
    "--items", "n_items", type=click.IntRange(min=10), default=500, show_default=True, help="Items of each capability."
)
@click.option("--base", type=_UNIT_INTERVAL, default=0.3, show_default=True, help="Supposed accuracy of the base.")
@click.option("--ceiling", type=_UNIT_INTERVAL, default=0.85, show_default=True, help="With any number of examples.")
@click.option("--teacher", type=_UNIT_INTERVAL, default=0.85, show_default=True, help="Of the teacher.")
@click.option("--chance", type=_UNIT_INTERVAL, default=0.0, show_default=True, help="Score of a guess.")
@click.option(
    "--target", type=_UNIT_INTERVAL, default=0.9, show_default=True, help="Share of the teacher above chance."
)
@click.option("--seed-sd", type=float, default=0.1, show_default=True, help="Between students of one size, in probits.")
@_replicates_option
@_seed_option
@json_option
def data_cost_command(
    knowledge: float, reasoning: float, sizes: str, base: float, ceiling: float, teacher: float, target: float,
    seed: int, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """The ratio of two data costs, reasoning over knowledge, by simulation."""
    import numpy as np

    from capgap.stats.curves import AssumedCurve, CurveTarget, data_cost_ratio_power

    if knowledge == reasoning:
        raise UsageError("--knowledge and --reasoning are the same: there is no difference to find.")
    reasoning_curve, knowledge_curve = (AssumedCurve(base, ceiling, teacher, cost) for cost in (reasoning, knowledge))
    simulated = data_cost_ratio_power(
        reasoning_curve, knowledge_curve, sizes=_parse_numbers(sizes, "--sizes"), target=CurveTarget(target),
        rng=np.random.default_rng(seed), **options,
    )  # fmt: skip
    if not math.isfinite(simulated.width):
        width = "unknown, no study gave an interval"
    elif simulated.width > _MAX_LOG_WIDTH:
        width = "open, most studies do not bound the dearer cost"
    else:
        width = f"a factor of {math.exp(simulated.width):.2g}"
    lines = [f"reasoning / knowledge = {reasoning / knowledge:.3g}: {simulated}", f"median width: {width}"]
    _print_power_result(asdict(simulated), lines, as_json)


def _parse_numbers(text: str, option: str, n: int | None = None) -> list[float]:
    """Numbers between commas, `n` of them where it is given."""
    try:
        numbers = [float(number_text) for number_text in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or (n is not None and len(numbers) != n):
        raise UsageError(f"{option} {text}: expected {n or 'some'} numbers between commas, such as .3,.7,.8")
    return numbers


def _print_power_result(numbers: dict[str, Any], lines: list[str], as_json: bool) -> None:
    """The lines, or the numbers as JSON with null for what is unknown."""
    if as_json:
        print_json({name: None if isinstance(n, float) and math.isnan(n) else n for name, n in numbers.items()})
    else:
        click.echo("\n".join(lines))
