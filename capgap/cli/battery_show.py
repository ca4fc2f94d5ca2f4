"""``capgap battery show``: what a battery asks, why, and what it costs."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capgap.cli.options import data_root_option, json_option
from capgap.cli.printing import print_json
from capgap.errors import UsageError
from capgap.printable_text import one_line

if TYPE_CHECKING:
    from capgap.battery.battery_preview import BatteryEntryPreview

_DEFAULT_MODEL_SIZES = ("135M", "1B", "8B")
_SUFFIX_MULTIPLIERS = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


@click.command("show")
@click.argument("name_or_file")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many items a task.")
@click.option("--model", metavar="MODEL", help="Estimate the minutes of this model.")
@click.option(
    "--size", "sizes", multiple=True, metavar="N",
    help=f"Of a model of so many parameters; default {', '.join(_DEFAULT_MODEL_SIZES)}.",
)  # fmt: skip
@click.option("--device", metavar="D", help="cpu, cuda, mps; default: the best there is.")
@data_root_option
@json_option
def show(
    name_or_file: str, limit: int | None, model: str | None, sizes: tuple[str, ...], device: str | None,
    data_root: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Show tasks, sizes, labels and reasons, and what asking them costs.

    Nothing is fetched and no model is loaded: sizes of hub data are what the file says about them.
    """
    from capgap.battery import load_battery
    from capgap.battery.battery_preview import preview_battery

    parameters = {size: _parse_parameter_count(size) for size in sizes or (() if model else _DEFAULT_MODEL_SIZES)}
    loaded = load_battery(name_or_file, data_root=data_root)
    entries = preview_battery(loaded, limit=limit)
    cost = _estimate_cost(entries, model, parameters, device)
    if as_json:
        rows = [entry.as_record() for entry in entries]
        facts = {"name": loaded.name, "version": loaded.version, "description": loaded.description, "hash": loaded.hash}
        print_json(facts | {"tasks": rows, "cost": cost})
        return
    click.echo(f"{loaded.name} {loaded.version}  {loaded.path}  {loaded.hash[:12]}")
    click.echo(one_line(loaded.description))
    for entry in entries:
        _show_entry(entry)
    click.echo("\n" + _summary(entries))
    for line in _format_cost_lines(cost):
        click.echo(line)
    if not all(entry.is_local for entry in entries):
        click.echo(f"Sizes of hub data are the file's own words; capgap battery fetch {name_or_file} gets the data.")


def _show_entry(entry: "BatteryEntryPreview") -> None:
    title = entry.name if entry.variant == "default" else f"{entry.name}, variant {entry.variant}"
    approximate_prefix = "about " if entry.is_approximate else ""
    if entry.n_items is None or entry.n_sampled is None:
        items = "unknown number of items"
    elif entry.n_sampled < entry.n_items:
        items = f"{entry.n_sampled:,} of {approximate_prefix}{entry.n_items:,} items"
    else:
        items = f"{approximate_prefix}{entry.n_items:,} items"
    words = [
        f"{entry.n_tasks} tasks" if entry.n_tasks > 1 else None,
        items,
        entry.capability or ("capability by item" if entry.is_local else "no one capability"),
        entry.domain,
        entry.format or "both formats",
        entry.primary,
        None if entry.num_fewshot is None else f"{entry.num_fewshot} shots",
    ]
    click.echo(f"\n{one_line(title)}: {one_line(', '.join(filter(None, words)))}")
    for reason in filter(None, (entry.reason, entry.source and f"from {entry.source}")):
        click.echo(f"  {one_line(reason)}")


def _summary(entries: Sequence["BatteryEntryPreview"]) -> str:
    items: Counter[str] = Counter()
    tasks: Counter[str] = Counter()
    for entry in entries:
        word = entry.capability or "unlabelled or by item"
        tasks[word] += entry.n_tasks
        items[word] += entry.n_sampled or 0
    capability_texts = [f"{word} {tasks[word]} tasks with {items[word]:,} items" for word in sorted(tasks)]
    unknown = sum(entry.n_sampled is None for entry in entries)
    tail = f" {unknown} of unknown size are not counted." if unknown else ""
    return f"Asked: {sum(items.values()):,} items; {', '.join(capability_texts)}.{tail}"


def _parse_parameter_count(size: str) -> float:
    """The number that ``135M`` or ``1.5B`` stands for."""
    match = re.fullmatch(r"([0-9]{1,4}(?:\.[0-9]{1,3})?)([KMBT])", size.strip().upper())
    if match is None or not float(match[1]):
        raise UsageError(f"--size {size[:40]!r}: expected a number of parameters such as 135M, 1.5B or 70B.")
    return float(match[1]) * _SUFFIX_MULTIPLIERS[match[2]]


def _estimate_cost(
    entries: Sequence["BatteryEntryPreview"], model: str | None, sizes: dict[str, float], device: str | None
) -> dict[str, Any]:
    """Tokens to read and to write, and minutes by model or size on this device, ledger empty."""
    from capgap.evaluation import EvaluationPlan, cost
    from capgap.models import choose_device, locate, parse_model

    tasks = [entry.stand_in for entry in entries if entry.stand_in is not None]
    tokens = cost.count_tokens(tasks)
    n_read, _, written = tokens
    minutes: dict[str, float] = {}
    if model is not None:
        spec = parse_model(model)
        if spec.kind not in ("checkpoint", "microworld"):
            raise UsageError(f"--model {model[:80]!r}: how fast a backend is cannot be told from here. Give --size.")
        locate(spec)
        minutes[spec.name] = cost.expected_minutes(EvaluationPlan(students=(spec,), device=device), tasks)
    chosen_device = choose_device(device)
    if sizes:
        # All parameters are counted as layers: where the head is of weight, --model tells better.
        size_minutes = cost.minutes_by_size(tokens, list(sizes.values()), chosen_device)
        minutes |= dict(zip(sizes, size_minutes, strict=True))
    return {"tokens_read": round(n_read), "tokens_written": round(written), "device": chosen_device, "minutes": minutes}


def _format_cost_lines(cost: dict[str, Any]) -> list[str]:
    durations = ", ".join(f"{one_line(name)} {_format_minutes(minutes)}" for name, minutes in cost["minutes"].items())
    return [
        f"Cost: about {cost['tokens_read']:,} tokens to read and {cost['tokens_written']:,} to write.",
        f"Time on this {cost['device']}, good to a factor of about two: {durations}.",
    ]


def _format_minutes(minutes: float) -> str:
    if minutes < 1:
        return "under a minute"
    if minutes < 120:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.0f} h" if minutes < 2880 else f"{minutes / 1440:.0f} days"
