"""``capgap battery``: list, show, check, begin and fetch batteries, and print their schema."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capgap.cli.battery_show import show
from capgap.cli.options import data_root_option, json_option
from capgap.cli.printing import print_json
from capgap.errors import BatteryError

if TYPE_CHECKING:
    from capgap.battery.battery_check import PromptSample, TaskCheckReport

__all__ = ["battery"]

_allow_code_option = click.option(
    "--allow-code", is_flag=True, help="Allow lm-eval tasks that run what models write. A battery file never runs code."
)


@click.group()
def battery() -> None:
    """List, show, check, begin and fetch batteries."""


battery.add_command(show)


@battery.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List the batteries that come with capgap."""
    from capgap.battery import list_batteries

    rows = [_summarise_battery(name) for name in list_batteries()]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        items = "items from the hub" if row["items"] is None else f"{row['items']:,} items"
        click.echo(f"{row['name']:<12} {row['tasks']:>3} tasks  {items:<18}  {row['description']}")


@battery.command("new")
@click.argument("file", type=click.Path(path_type=Path), default="mine.yaml")
def new_command(file: Path) -> None:
    """Write a small commented battery with every key, and its data beside it; FILE is mine.yaml by default.

    It passes `capgap battery check` as it is. Nothing that exists is overwritten.
    """
    from capgap.battery.starter_battery import write_starter_battery

    for written in write_starter_battery(file):
        click.echo(written)
    click.echo(f"Next: capgap battery check {file}", err=True)


@battery.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of a battery file."""
    from capgap.battery import json_schema

    print_json(json_schema())


@battery.command("check")
@click.argument("name_or_file")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many items a task.")
@data_root_option
@_allow_code_option
def check_command(name_or_file: str, limit: int | None, data_root: Path | None, allow_code: bool) -> None:
    """Show two prompts of each task as they will be sent, and prove the scorer.

    Right answers must score 1.00 and empty ones 0.00 (where answers are chosen: wrong ones).
    """
    from capgap.battery import load_battery
    from capgap.battery.battery_check import check_battery, summary

    loaded = load_battery(name_or_file, data_root=data_root, allow_code=allow_code)
    click.echo(f"{loaded.name} {loaded.version}  {loaded.path}  {loaded.hash[:12]}")
    task_checks = []
    for task_check in check_battery(loaded, limit=limit):
        _show_check(task_check)
        task_checks.append(task_check)
    click.echo(f"\n{loaded.name}: {summary(task_checks)}.")
    if any(task_check.missing_data for task_check in task_checks):
        click.echo(f"Data that are missing come with: capgap battery fetch {name_or_file}")
    failed_checks = [task_check.name for task_check in task_checks if not task_check.ok]
    if failed_checks:
        raise BatteryError(f"{loaded.path}: {len(failed_checks)} task(s) cannot be used: {', '.join(failed_checks)}.")


@battery.command("fetch")
@click.argument("name_or_file")
@data_root_option
@_allow_code_option
def fetch_command(name_or_file: str, data_root: Path | None, allow_code: bool) -> None:
    """Download the hub data of a battery, so that it works without a network."""
    from capgap.battery import load_battery
    from capgap.battery.hub_fetch import fetch_battery, needs_hub

    loaded = load_battery(name_or_file, data_root=data_root, allow_code=allow_code)
    if not needs_hub(loaded):
        click.echo(f"{loaded.name} needs no download.")
        return
    fetch_errors = {}
    for task in fetch_battery(loaded):
        if task.problem is not None:
            fetch_errors[task.name] = task.problem
        fetch_result_text = "failed" if task.n_items is None else f"{task.n_items:,} items"
        remark = f", but {task.note}" if task.note and task.n_items is not None else ""
        click.echo(f"{task.name}: {fetch_result_text}{remark}", err=True)
    if fetch_errors:
        first_failure = next(iter(fetch_errors.values()))
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
            first_failure += " The network is switched off by HF_HUB_OFFLINE."
        raise BatteryError(
            f"{len(fetch_errors)} of {len(loaded.tasks)} tasks could not be fetched, the first because: {first_failure}"
        )
    click.echo(f"{loaded.name}: all data are in the cache.")


def _summarise_battery(name: str) -> dict[str, Any]:
    from capgap.battery import load_battery
    from capgap.battery.battery_spec import CustomTask
    from capgap.battery.hub_fetch import needs_hub

    loaded = load_battery(name)
    data_tasks = [task for task in loaded.tasks if isinstance(task, CustomTask)]
    items = None if needs_hub(loaded) else sum(len(loaded.rows(task)) for task in data_tasks)
    return {"name": name, "tasks": len(loaded.tasks), "items": items, "description": loaded.description}


def _show_check(check: "TaskCheckReport") -> None:
    title = check.name if check.variant == "default" else f"{check.name}, variant {check.variant}"
    if check.prepared is None:
        click.echo(f"\n{title}: {'no data here' if check.missing_data else 'cannot be used'}")
    else:
        task = check.prepared
        facts = (task.capability or "capability by item", task.domain, task.format, task.primary)
        label = ", ".join(filter(None, facts))
        click.echo(f"\n{title}: {len(task.items):,} items, {label}, {task.num_fewshot} shots")
        for sample in check.samples:
            _show_sample(sample)
        scores = [("right answers", check.gold), ("wrong" if task.format == "choose" else "empty", check.empty)]
        click.echo("  " + ", ".join(f"{name} {score:.2f}" for name, score in scores if score is not None))
    for text in check.notes:
        click.echo(f"  note: {text}")
    for text in check.problems:
        click.echo(f"  WRONG: {text}")


def _show_sample(sample: "PromptSample") -> None:
    """Through `repr`: what comes from a file must not steer the terminal."""
    click.echo(f"  {sample.item!a} prompt  {sample.prompt!r}")
    if sample.choices is not None:
        click.echo(f"    choices {list(sample.choices)!r}")
    chance = "unknown" if sample.chance is None else f"{sample.chance:.2f}"
    click.echo(f"    target  {list(sample.targets)!r}, chance {chance}")
