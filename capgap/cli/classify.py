"""`capgap classify`: knowledge or reasoning for each item, with the evidence."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from capgap.cli.permissions import allow_options

if TYPE_CHECKING:
    from capgap.classify import Asked, Labelled

__all__ = ["classify"]


@click.command()
@click.argument("source", metavar="FILE|BATTERY")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="MODEL",
    help="Ask this model too, with and without thoughts; repeatable. Never one that the labels will compare.",
)
@click.option(
    "--outcomes",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="TABLE|DIR",
    help="Answers that are there already, with variants such as cot; repeatable.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="A .jsonl or .parquet file; else stdout.")
@click.option("--replace", is_flag=True, help="Replace OUT where it is there already.")
@click.option("--limit", type=click.IntRange(min=1), help="Items (of a battery: a task) at most.")
@click.option("--device", metavar="D", help="cpu, mps, cuda, cuda:1; default: a GPU, else the CPU.")
@click.option(
    "--data-root",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="CAPGAP_DATA",
    help="Where a battery finds its data beside its own folder.",
)
@allow_options
def classify(
    source: str,
    models: tuple[str, ...],
    outcomes: tuple[Path, ...],
    out: Path | None,
    replace: bool,
    limit: int | None,
    device: str | None,
    data_root: Path | None,
    allow: tuple[str, ...],
) -> None:
    """Say of each item whether it asks for knowledge or for reasoning, how sure that is, and why.

    \b
    FILE is JSONL with `text` and, where known, `item`, `task`, `choices`, `target`, `capability`,
    `rationale`. Evidence comes from what is declared, from the words of the item, and with --model
    or --outcomes from how models answer; p_reasoning in the middle means mixed.

    \b
      capgap classify questions.jsonl --out labels.jsonl
      capgap classify pocket --out labels.parquet
    """
    from capgap.classify import classify_items, label_lines, refuse_out, write_labels

    if out is not None:
        refuse_out(out, replace=replace)
    items = _items(source, limit, data_root, allow)
    found = classify_items(items)
    if out is None:
        for line in label_lines(found.labels):
            click.echo(line)
    else:
        write_labels(found.labels, out, replace=replace)
    _summary(found, out)


def _items(source: str, limit: int | None, data_root: Path | None, allow: tuple[str, ...]) -> "list[Asked]":
    """The questions of a JSONL file, else of a battery."""
    from capgap.classify import asked_of, read_items

    if source.endswith((".jsonl", ".ndjson")):
        return read_items(source, limit=limit)
    from capgap.battery import load_battery, prepare

    return asked_of(prepare(load_battery(source, data_root=data_root, allow_code="allow_code" in allow), limit=limit))


def _summary(found: "Labelled", out: Path | None) -> None:
    """How many of each, how many in the middle, and the tasks, on stderr."""
    from capgap.classify import MIDDLE

    labels = found.labels
    counts = labels["capability"].value_counts()
    told = ", ".join(f"{int(counts.get(word, 0)):,} {word}" for word in ("knowledge", "reasoning", "mixed"))
    low, high = MIDDLE
    middle = int(((labels["p_reasoning"] >= low) & (labels["p_reasoning"] <= high)).sum())
    for name, label in list(found.tasks.items())[:40]:
        shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name[:60])
        click.echo(
            f"  {shown}: {label.capability}, p {label.p:.2f} [{label.conf_low:.2f}, {label.conf_high:.2f}]", err=True
        )
    if len(found.tasks) > 40:
        click.echo(f"  and {len(found.tasks) - 40:,} more tasks", err=True)
    sources = ", ".join(sorted({kind for one in labels["source"] for kind in one.split(", ")}))
    click.echo(
        f"{len(labels):,} items: {told}; {middle:,} in the middle ({low:.2f} to {high:.2f}). Evidence: {sources}."
        f"{f' {out}' if out else ''}",
        err=True,
    )
