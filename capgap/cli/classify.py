"""`capgap classify`: knowledge or reasoning for each item, with the evidence."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from capgap.cli.permissions import allow_options
from capgap.errors import UsageError
from capgap.events import Event, Note

if TYPE_CHECKING:
    from capgap.classification import Evidence, LabelledItems, UnlabelledItem

__all__ = ["classify"]

_SHOWN = 40


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
@click.option(
    "--evidence",
    "kinds",
    multiple=True,
    type=click.Choice(["declared", "text", "behaviour"]),
    help="Only this kind of evidence; repeatable. Default: all that there is.",
)
@click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("capgap-out/classify"),
    show_default=True,
    help="Where answers of --model are kept, as a DIR for --outcomes; the same command goes on where it stopped.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="A .jsonl or .parquet file; else stdout.")
@click.option("--replace", is_flag=True, help="Replace OUT where it is there already.")
@click.option("--limit", type=click.IntRange(min=1), help="Items (of a battery: a task) at most: a seeded sample.")
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
    kinds: tuple[str, ...],
    work: Path,
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
      capgap classify microworld --model microworld:teacher --model microworld:generalist
    """
    from capgap.classification import classify_items, label_lines, refuse_out, write_labels

    if (models or outcomes) and kinds and "behaviour" not in kinds:
        raise UsageError("--model and --outcomes give evidence of behaviour, which --evidence leaves out.")
    if out is not None:
        refuse_out(out, replace=replace)
    items = _items(source, limit, data_root, allow)
    behaviour = _behaviour(items, models, outcomes, work, device, allow)
    found = classify_items(
        items,
        behaviour=behaviour,
        text=None if not kinds or "text" in kinds else lambda _: [],
        declarations=not kinds or "declared" in kinds,
    )
    if out is None:
        for line in label_lines(found.labels, ascii_only="utf" not in (sys.stdout.encoding or "").lower()):
            click.echo(line)
    else:
        write_labels(found.labels, out, replace=replace)
    _summary(items, found, out)


def say(line: str) -> None:
    """A line of progress or summary, on stderr."""
    click.echo(line, err=True)


def _say_note(event: Event) -> None:
    if isinstance(event, Note):
        say(event.text)


def _items(source: str, limit: int | None, data_root: Path | None, allow: tuple[str, ...]) -> "list[UnlabelledItem]":
    """The questions of a JSONL file, else of a battery."""
    from capgap.classification import read_items, unlabelled_items

    if source.endswith((".jsonl", ".ndjson")):
        return read_items(source, limit=limit)
    if Path(source).is_file() and Path(source).suffix not in (".yaml", ".yml"):
        raise UsageError(f"{source}: expected a name that ends in .jsonl (one JSON object a line), or a battery.")
    from capgap.battery import load_battery, prepare

    return unlabelled_items(
        prepare(load_battery(source, data_root=data_root, allow_code="allow_code" in allow), limit=limit)
    )


def _behaviour(
    items: "list[UnlabelledItem]",
    models: tuple[str, ...],
    outcomes: tuple[Path, ...],
    work: Path,
    device: str | None,
    allow: tuple[str, ...],
) -> "dict[str, tuple[Evidence, ...]]":
    """Evidence of the models that are asked now, and of answers that are there."""
    if not models and not outcomes:
        return {}
    from capgap.classification import behaviour_evidence, join_answers, read_answers

    tables = [read_answers(path) for path in outcomes]
    if models:
        from capgap.classification.probing import probe_models
        from capgap.cli.evaluate import set_threads
        from capgap.models import expand_models, permitted

        set_threads(None)
        specs = expand_models([permitted(word, allow) for word in models])
        tables.append(probe_models(specs, items, work, device=device, on_event=_say_note))
    found = behaviour_evidence(*join_answers(tables))
    known = {item.task for item in items}
    of_ours = {task: words for task, words in found.items() if task in known and words}
    if not of_ours:
        say(
            "the answers of models are no evidence on any of these tasks: needed are ten items or more of a task, "
            "asked without thoughts (variant direct or default) and with them (variant cot), of a model that is "
            "better than chance."
        )
    return of_ours


def _summary(items: "list[UnlabelledItem]", found: "LabelledItems", out: Path | None) -> None:
    """How many of each, how many in the middle, and the tasks, on stderr."""
    from capgap.classification import MIDDLE

    labels = found.labels
    for name, label in list(found.tasks.items())[:_SHOWN]:
        interval = f"p {label.p:.2f} [{label.conf_low:.2f}, {label.conf_high:.2f}]"
        reason = next((r for r in label.reasons if r.weight * label.logit > 0), None)  # the heaviest that is for it
        why = f"; {reason.words}" if reason else ""
        say(_line(f"  {name[:60]}: {label.capability}, {interval}{why}"))
    if len(found.tasks) > _SHOWN:
        say(f"  and {len(found.tasks) - _SHOWN:,} more tasks")
    counts = labels["capability"].value_counts()
    told = ", ".join(f"{int(counts.get(word, 0)):,} {word}" for word in ("knowledge", "reasoning", "mixed"))
    low, high = MIDDLE
    middle = int(((labels["p_reasoning"] >= low) & (labels["p_reasoning"] <= high)).sum())
    sources = ", ".join(sorted({kind for one in labels["source"] for kind in one.split(", ")}))
    say(f"{len(labels):,} items: {told}; {middle:,} with p from {low:.2f} to {high:.2f}. Evidence: {sources}.")
    declared = [(item, got) for item, got in zip(items, labels["capability"], strict=True) if item.capability]
    if declared and "declared" in sources:
        others = [(item, got) for item, got in declared if item.capability != got]
        if others:
            item, got = others[0]
            say(
                _line(
                    f"{len(others):,} items are labelled otherwise than declared, the first is {item.item[:60]} of "
                    f"{item.task[:60]}: declared {item.capability}, labelled {got}."
                )
            )
    elif declared:
        sure = [(item.capability, got) for item, got in declared if item.capability != "mixed"]
        right = sum(said == got for said, got in sure)
        say(f"{right:,} of {len(sure):,} items that are declared knowledge or reasoning are labelled so.")
    if out is not None:
        say(f"labels: {out}")


def _line(text: str) -> str:
    """One line without what a terminal would obey: it may quote a file."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
