"""`capgap power`: what a design can see before anything runs."""

import json
import math
from dataclasses import asdict
from typing import Any

import click

__all__ = ["power"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
_POWER = click.option(
    "--power", "wanted", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.8, show_default=True,
    help="Probability with which it should be found.",
)  # fmt: skip
_TASKS = click.option(
    "--tasks", type=click.IntRange(min=1), default=1, show_default=True, help="Tasks, which count equally."
)
_ITEMS = click.option("--items", type=click.IntRange(min=2), default=100, show_default=True, help="Items of each task.")
_CLUSTER = click.option(
    "--cluster-size", type=click.IntRange(min=1), default=1, show_default=True,
    help="Items that stand or fall together (of one passage, one template).",
)  # fmt: skip
_SEED = click.option("--seed", type=int, default=0, show_default=True, help="Of the simulation.")
_REPLICATES = click.option(
    "--replicates", type=click.IntRange(min=20), default=200, show_default=True, help="Studies that are simulated."
)
_OPEN = math.log(1e6)
"""A ratio's interval that spans more has an end that nothing bounds."""
_SHARE = click.FloatRange(0, 1)


@click.group(invoke_without_command=False)
def power() -> None:
    """Items, clusters, tasks and seeds that a finding needs, and the smallest one that a design can see.

    \b
      capgap power gap --gap 0.03 --tasks 8 --items 200
      capgap power closure --knowledge .3,.7,.8 --reasoning .2,.35,.8 --tasks 4 --items 100
      capgap power data-cost --knowledge 300 --reasoning 2000 --sizes 125,250,500,1000,2000,4000,8000
    """


@power.command()
@click.option("--gap", type=_SHARE, help="The gap that matters, in score: 0.03 is three points.")
@_TASKS
@_ITEMS
@_CLUSTER
@click.option("--icc", type=_SHARE, default=0.0, help="Correlation of the differences within a cluster.")
@click.option("--task-sd", type=_SHARE, default=0.0, help="How gaps differ between tasks: speaks of tasks like these.")
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Training seeds of the recipe.")
@click.option("--seed-sd", type=_SHARE, default=0.0, help="How gaps differ between seeds: speaks of the recipe.")
@click.option(
    "--disagreement", type=_SHARE, default=0.3, show_default=True,
    help="Share of the items that exactly one of the two models answers rightly.",
)  # fmt: skip
@_POWER
@_JSON
def gap(
    gap: float | None,
    tasks: int,
    items: int,
    cluster_size: int,
    icc: float,
    task_sd: float,
    seeds: int,
    seed_sd: float,
    disagreement: float,
    wanted: float,
    as_json: bool,
) -> None:
    """A gap between teacher and student, by formula."""
    from capgap.stats import GapDesign, needed_for_gap

    design = GapDesign(
        n_tasks=tasks, items_per_task=items, cluster_size=cluster_size, icc=icc, task_sd=task_sd, n_seeds=seeds,
        seed_sd=seed_sd, disagreement=disagreement,
    )  # fmt: skip
    smallest = design.smallest_gap(wanted)
    told: dict[str, Any] = {"smallest_gap": None if math.isnan(smallest) else smallest, "power": wanted}
    lines = [
        f"smallest visible gap: {100 * smallest:.1f} points (power {wanted:.2f})"
        if not math.isnan(smallest)
        else "no gap that could be is visible with this design"
    ]
    if gap is not None:
        found = design.power(gap)
        told |= {"gap": gap, "power_at_gap": found, "needed": {}}
        lines.append(f"power to see {100 * gap:g} points: {found:.2f}" + (f" ({design.few})" if design.few else ""))
        kinds = ["items", *(["clusters"] if cluster_size > 1 else []), "tasks", *(["seeds"] if seed_sd else [])]
        for what in kinds:
            needed = needed_for_gap(gap, design, what, power=wanted)  # type: ignore[arg-type]
            told["needed"][what] = needed.n
            of = " of each task" if what in ("items", "clusters") else ""
            amount = f"{needed.n:,}" if needed.n is not None else "no number is enough"
            amount += f" ({needed.note})" if needed.note else ""
            lines.append(f"needed for {100 * gap:g} points, the rest as it is: {what}{of}: {amount}")
    _say(told, lines, as_json)


@power.command()
@click.option("--knowledge", required=True, metavar="B,S,T", help="Accuracies of base, student and teacher.")
@click.option("--reasoning", required=True, metavar="B,S,T", help="Likewise.")
@_TASKS
@_ITEMS
@_CLUSTER
@click.option("--of-cluster", type=_SHARE, default=0.0, help="Share of an answer's variance that is its cluster's.")
@_REPLICATES
@_SEED
@_POWER
@_JSON
def closure(
    knowledge: str,
    reasoning: str,
    tasks: int,
    items: int,
    cluster_size: int,
    of_cluster: float,
    replicates: int,
    seed: int,
    wanted: float,
    as_json: bool,
) -> None:
    """The difference of two gap closures, knowledge minus reasoning, by simulation."""
    import numpy as np

    from capgap.stats import AssumedAccuracies, closure_difference_power, needed_for_closure_difference

    first, second = (
        AssumedAccuracies(*_numbers(told, name, 3))
        for told, name in ((knowledge, "--knowledge"), (reasoning, "--reasoning"))
    )
    shared: dict[str, Any] = {"n_tasks": tasks, "cluster_size": cluster_size, "of_cluster": of_cluster}
    found = closure_difference_power(
        first, second, items_per_task=items, rng=np.random.default_rng(seed), n_replicates=replicates, **shared
    )
    needed = needed_for_closure_difference(first, second, seed=seed, power=wanted, n_replicates=replicates, **shared)
    lines = [
        f"closures {100 * first.closure:.0f} % and {100 * second.closure:.0f} %: {found}",
        f"median width of the interval: {100 * found.width:.0f} points",
        f"items of each task for a power of {wanted:.2f}: "
        + (f"{needed.n:,}" if needed.n is not None else f"no number is enough ({needed.note})"),
    ]
    _say({**asdict(found), "needed_items": needed.n}, lines, as_json)


@power.command("data-cost")
@click.option(
    "--knowledge", type=float, required=True, metavar="N", help="Examples that knowledge is supposed to cost."
)
@click.option("--reasoning", type=float, required=True, metavar="N", help="Likewise.")
@click.option(
    "--sizes", required=True, metavar="N,N,…", help="Unique examples of a capability in the planned students."
)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Students of each size.")
@click.option("--items", type=click.IntRange(min=10), default=500, show_default=True, help="Items of each capability.")
@click.option("--base", type=_SHARE, default=0.3, show_default=True, help="Supposed accuracy of the base.")
@click.option("--ceiling", type=_SHARE, default=0.85, show_default=True, help="With any number of examples.")
@click.option("--teacher", type=_SHARE, default=0.85, show_default=True, help="Of the teacher.")
@click.option("--chance", type=_SHARE, default=0.0, show_default=True, help="Score of a guess.")
@click.option("--target", type=_SHARE, default=0.9, show_default=True, help="Share of the teacher above chance.")
@click.option("--seed-sd", type=float, default=0.1, show_default=True, help="Between students of one size, in probits.")
@_REPLICATES
@_SEED
@_JSON
def data_cost(
    knowledge: float,
    reasoning: float,
    sizes: str,
    seeds: int,
    items: int,
    base: float,
    ceiling: float,
    teacher: float,
    chance: float,
    target: float,
    seed_sd: float,
    replicates: int,
    seed: int,
    as_json: bool,
) -> None:
    """The ratio of two data costs, reasoning over knowledge, by simulation."""
    import numpy as np

    from capgap.errors import UsageError
    from capgap.stats import CurveTarget, SupposedCurve, data_cost_ratio_power

    if knowledge == reasoning:
        raise UsageError("--knowledge and --reasoning are the same: there is no difference to find.")
    first, second = (SupposedCurve(base, ceiling, teacher, cost) for cost in (reasoning, knowledge))
    found = data_cost_ratio_power(
        first, second, sizes=_numbers(sizes, "--sizes"), n_seeds=seeds, n_items=items, target=CurveTarget(target),
        chance=chance, seed_sd=seed_sd, rng=np.random.default_rng(seed), n_replicates=replicates,
    )  # fmt: skip
    if not math.isfinite(found.width):
        width = "unknown, no study gave an interval"
    elif found.width > _OPEN:
        width = "open, most studies do not bound the dearer cost"
    else:
        width = f"a factor of {math.exp(found.width):.2g}"
    lines = [f"reasoning / knowledge = {reasoning / knowledge:.3g}: {found}", f"median width: {width}"]
    _say(asdict(found), lines, as_json)


def _numbers(told: str, option: str, n: int | None = None) -> list[float]:
    """Numbers between commas."""
    from capgap.errors import UsageError

    try:
        found = [float(part) for part in told.split(",")]
    except ValueError:
        found = []
    if not found or (n is not None and len(found) != n):
        raise UsageError(f"{option} {told}: expected {n or 'some'} numbers between commas, such as .3,.7,.8")
    return found


def _say(told: dict[str, Any], lines: list[str], as_json: bool) -> None:
    told = {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in told.items()}
    click.echo(json.dumps(told, indent=1) if as_json else "\n".join(lines))
