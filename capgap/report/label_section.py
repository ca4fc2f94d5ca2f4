"""How items got their labels, how far the classifier can be believed, and what its doubt does to the contrast."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from capgap.report import svg, text
from capgap.report.tables import EstimateIndex, EstimateView, ShownTable, TableCell
from capgap.schema import Roles

__all__ = ["LabelSection", "label_section"]

Keys = set[tuple[str, str]]
_MOST_DRAWN = 400
_SHARE = re.compile(r"labels make (\d+) % of the variance")
_NAMES = {"behaviour": "answers of models", "declared": "declaration", "text": "text", "none": "nothing"}


@dataclass(frozen=True)
class LabelSection:
    """The section on labels."""

    sentences: tuple[str, ...]
    tasks: ShownTable | None
    """Tasks that declare nothing, with the classifier's word on them."""
    contrast: ShownTable | None
    """Knowledge against reasoning with labels taken as certain, and with labels drawn."""
    reliability: Markup | None
    """How often items called so are reasoning, on task families that the classifier had not seen."""
    reliability_note: str = ""


def label_section(
    labels: pd.DataFrame | None, undeclared: Keys, book: EstimateIndex, roles: Roles, run: Mapping[str, Any]
) -> LabelSection | None:
    """Gather the section; None where there are no labels.

    Parameters
    ----------
    labels
        The `labels` table.
    undeclared
        See `capgap.schema.undeclared_items`.
    book, roles
        The estimates, and who is who.
    run
        Its ``classifier`` holds what the classifier was measured to do on families that it had not seen.
    """
    if labels is None or labels.empty:
        return None
    keys = list(zip(labels["task"].astype(str), labels["item"].astype(str), strict=True))
    inferred = labels[[key in undeclared for key in keys]]
    if inferred.empty:
        return LabelSection((f"All {len(labels):,} items declare what they ask for.",), None, None, None)
    measured = run.get("classifier") if isinstance(run.get("classifier"), Mapping) else {}
    drawn = _reliability(measured or {})
    return LabelSection(
        tuple(_sentences(labels, inferred)),
        _task_table(inferred),
        _contrast(book, roles),
        drawn,
        _told(measured or {}) if drawn is not None else "",
    )


def _sentences(labels: pd.DataFrame, inferred: pd.DataFrame) -> list[str]:
    n, of = len(inferred), len(labels)
    sources = Counter(_source(value) for value in inferred["source"])
    said = [
        f"{n:,} of {of:,} items declare no capability; they were labelled from "
        + text.join(f"{name} ({count:,})" for name, count in sources.most_common())
        + "."
    ]
    middle = int((inferred["capability"] == "mixed").sum())
    if middle:
        verbs = ("lies", "counts", "stands") if middle == 1 else ("lie", "count", "stand")
        said.append(
            f"{middle:,} of them {verbs[0]} between knowledge and reasoning, {verbs[1]} as mixed and {verbs[2]} on "
            "neither side of the contrast."
        )
    models = {name for value in inferred["evidence"] for name in _models(value)}
    if models:
        said.append(f"Answers were those of {text.join(sorted(models))}, which are not compared here.")
    return said


def _source(value: object) -> str:
    names = value.split(", ") if isinstance(value, str) else []
    return " and ".join(_NAMES.get(name, text.shorten(name, 40)) for name in names) or "an unknown source"


def _evidence(value: object) -> dict[str, Any]:
    try:
        found = json.loads(value) if isinstance(value, str) else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _models(value: object) -> list[str]:
    found = _evidence(value).get("models")
    rows = found if isinstance(found, list) else []
    return [text.shorten(row["model"], 60) for row in rows if isinstance(row, dict) and "model" in row]


def _reasons(value: object) -> str:
    found = _evidence(value).get("reasons")
    rows = [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
    return "; ".join(text.shorten(row.get("words", ""), 90) for row in rows[:3])


def _task_table(inferred: pd.DataFrame) -> ShownTable:
    """One row a task, surest last: what needs a look stands first."""
    rows = []
    for task, part in inferred.groupby("task", sort=False):
        p = part["p_reasoning"].to_numpy(dtype=float, na_value=np.nan)
        middle = part.iloc[int(np.nanargmin(np.abs(p - np.nanmedian(p))))] if np.isfinite(p).any() else part.iloc[0]
        counts = Counter(part["capability"].astype(str))
        whole = _evidence(middle["evidence"]).get("task")
        rows.append((abs(float(np.nanmean(p)) - 0.5) if np.isfinite(p).any() else 0.0, task, p, counts, whole, middle))
    rows.sort(key=lambda row: row[0])
    cells = tuple(
        (
            TableCell(text.shorten(task, 60)),
            TableCell(", ".join(f"{name} {n:,}" if len(counts) > 1 else name for name, n in counts.most_common())),
            TableCell(text.percent(float(np.nanmean(p)) if np.isfinite(p).any() else None), numeric=True),
            TableCell(_interval(whole, middle), numeric=True),
            TableCell(text.count(len(p)), numeric=True),
            TableCell(_source(middle["source"])),
            TableCell(_reasons(middle["evidence"])),
        )
        for _, task, p, counts, whole, middle in rows
    )
    columns = (
        "task",
        "label",
        "reasoning, %",
        "95 % interval",
        "items",
        "from",
        "reasons, of a middling item",
    )
    return ShownTable("Tasks that declare no capability, least sure first", columns, cells)


def _interval(whole: object, middle: pd.Series) -> str:
    """Of the task, where the evidence tells it, else of its middling item."""
    if isinstance(whole, dict) and all(isinstance(whole.get(end), int | float) for end in ("low", "high")):
        return text.interval(float(whole["low"]), float(whole["high"]))
    low, high = (None if pd.isna(middle[name]) else float(middle[name]) for name in ("conf_low", "conf_high"))
    return text.interval(low, high)


def _contrast(book: EstimateIndex, roles: Roles) -> ShownTable | None:
    """Each number with the labels as they are, and over draws of the labels."""
    others = "these checkpoints, tasks like these"
    plain = {_key(row): row for row in book.rows if row.weighting == "tasks" and row.population != others}
    pairs = [(plain.get(_key(row)), row) for row in book.drawn]
    told = [(one, row) for one, row in pairs if not row.refused or (one is not None and not one.refused)]
    if not told:
        return None
    numbered = {name: f"{i} {name}" for i, name in enumerate(roles.students, 1)} if len(roles.students) > 1 else {}
    cells = tuple(
        (
            TableCell(row.name),
            TableCell(row.group),
            TableCell(numbered.get(row.model, row.model)),
            TableCell(row.contrast),
            TableCell("" if one is None else f"{one.shown} {one.interval}".strip(), numeric=True),
            TableCell(f"{row.shown} {row.interval}".strip(), numeric=True, muted=row.refused),
            TableCell(_share(row), numeric=True),
        )
        for one, row in told[:_MOST_DRAWN]
    )
    columns: tuple[str, ...] = (
        "quantity",
        "group",
        "model",
        "contrast",
        "labels as they are",
        "labels drawn",
        "doubt of labels",
    )
    rows: tuple[tuple[TableCell, ...], ...] = cells
    throughout: tuple[tuple[str, str], ...] = ()
    if len(roles.students) == 1:
        columns, rows = columns[:2] + columns[3:], tuple(row[:2] + row[3:] for row in cells)
        throughout = (("model", roles.students[0]),)
    caption = "With labels as they are, then with labels drawn by their doubt"
    return ShownTable(caption, columns, rows, throughout, max(0, len(told) - _MOST_DRAWN))


def _share(row: EstimateView) -> str:
    """Of the variance, from the note of `capgap.analysis`."""
    found = _SHARE.search(row.note)
    return f"{found[1]}\u202f%" if found else ""


def _key(row: EstimateView) -> tuple[str, str, str, str, str]:
    return row.quantity, row.level, row.group, row.model, row.contrast


def _bins(measured: Mapping[str, Any]) -> list[tuple[float, float, float]]:
    """Mean belief, share of reasoning, and weight of every bin."""
    found = measured.get("reliability")
    rows = found if isinstance(found, Sequence) and not isinstance(found, str) else ()
    bins = []
    for row in rows:
        if isinstance(row, Mapping) and all(isinstance(row.get(name), int | float) for name in ("p", "share", "n")):
            bins.append((float(row["p"]), float(row["share"]), float(row["n"])))
    return [b for b in bins if 0 <= b[0] <= 1 and 0 <= b[1] <= 1 and b[2] > 0]


def _told(measured: Mapping[str, Any]) -> str:
    """What stands below the plot."""
    said = ["Task families that were left out of the fit, each counted alike; the area of a point is its share."]
    if isinstance(measured.get("auroc"), int | float):
        said.append(f"Area under the ROC curve {measured['auroc']:.3f}.")
    if isinstance(measured.get("ece"), int | float):
        said.append(f"Expected calibration error {measured['ece']:.3f}.")
    return " ".join(said)


def _reliability(measured: Mapping[str, Any]) -> Markup | None:
    import seaborn

    bins = _bins(measured)
    if not bins:
        return None
    weight = np.array([n for _, _, n in bins])
    p, share = (np.array([100 * b[i] for b in bins]) for i in (0, 1))
    with svg.style():
        figure, axes = svg.canvas(330, 300, left=44, right=14, top=34, bottom=44)
        axes.plot([0, 100], [0, 100], color=svg.INK, linewidth=1.0, linestyle=(0, (2, 3)), zorder=1)
        axes.plot(p, share, color=svg.COLOURS["reasoning"], linewidth=1.4, zorder=2)
        sizes = 20 + 220 * weight / weight.sum()
        axes.scatter(p, share, s=sizes, color=svg.COLOURS["reasoning"], edgecolor=svg.PAPER, linewidth=1.0, zorder=3)
        axes.set_xlim(-4, 104)
        axes.set_ylim(-4, 104)
        axes.set_xticks([0, 25, 50, 75, 100])
        axes.set_yticks([0, 25, 50, 75, 100])
        axes.set(xlabel="belief in reasoning, %", ylabel="")
        axes.grid(visible=True, axis="both")
        figure.text(0.01, 1 - 14 / 300, "Reasoning among them, %", fontsize=11.5, fontweight="bold", va="center")
        seaborn.despine(ax=axes, left=True)
        said = "; ".join(f"of {a:.0f} % belief {b:.0f} % are reasoning" for a, b in zip(p, share, strict=True))
        return svg.inline(figure, prefix="reliability", label=f"Reliability of the classifier: {said}")
