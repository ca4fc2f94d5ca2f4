"""Where labels come from, how well the classifier is calibrated, and numbers over draws of the labels."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from capgap.report import svg, text
from capgap.report.tables import (
    LABEL_VARIANCE_FACTOR,
    EstimateIndex,
    EstimateView,
    ShownTable,
    TableCell,
    json_object,
    make_collapsed_table,
    numbered_models,
)
from capgap.schema import Roles

__all__ = ["LabelReportSection", "gather_label_section"]

TaskItemKeys = set[tuple[str, str]]
"""Task and item."""
_MAX_IMPUTED_ROWS = 400
_SOURCE_WORDS = {"behaviour": "answers of models", "declared": "declaration", "text": "text", "none": "nothing"}
_TASK_COLUMNS = ("task", "label", "reasoning, %", "95 % interval", "items", "from", "reasons, of a middling item")


@dataclass(frozen=True)
class LabelReportSection:
    """The section on labels."""

    sentences: tuple[str, ...]
    tasks: ShownTable | None = None
    """Tasks that declare nothing, with the classifier's label."""
    imputed: ShownTable | None = None
    """Numbers with the labels taken as certain, and over draws of the labels."""
    reliability: Markup | None = None
    """How often items called so are reasoning, on task families that the classifier had not seen."""
    reliability_note: str = ""


def gather_label_section(
    labels: pd.DataFrame | None, undeclared: TaskItemKeys, lookup: EstimateIndex, roles: Roles, run: Mapping[str, Any]
) -> LabelReportSection | None:
    """Gather the section; None where there are no labels.

    Parameters
    ----------
    labels
        The `labels` table.
    undeclared
        See `capgap.schema.undeclared_items`.
    lookup, roles
        The estimates, and who is who.
    run
        Its ``classifier`` holds what the classifier was measured to do on families that it had not seen.
    """
    if labels is None or labels.empty:
        return None
    keys = zip(labels["task"].astype(str), labels["item"].astype(str), strict=True)
    inferred_df = labels[[key in undeclared for key in keys]]
    if inferred_df.empty:
        return LabelReportSection((f"All {len(labels):,} items declare what they ask for.",))
    measured = json_object(run.get("classifier"))
    reliability = _draw_reliability(measured)
    return LabelReportSection(
        tuple(_write_label_sentences(inferred_df, len(labels))),
        _task_table(inferred_df),
        _make_imputed_table(lookup, roles),
        reliability,
        _reliability_note(measured) if reliability is not None else "",
    )


def _write_label_sentences(inferred_df: pd.DataFrame, n_items: int) -> list[str]:
    sources = Counter(_describe_source(value) for value in inferred_df["source"])
    counts = text.join(f"{name} ({count:,})" for name, count in sources.most_common())
    sentences = [f"{len(inferred_df):,} of {n_items:,} items declare no capability; they were labelled from {counts}."]
    n_mixed = int((inferred_df["capability"] == "mixed").sum())
    if n_mixed:
        verbs = ("lies", "counts", "stands") if n_mixed == 1 else ("lie", "count", "stand")
        sentences.append(
            f"{n_mixed:,} of them {verbs[0]} between knowledge and reasoning, {verbs[1]} as mixed and {verbs[2]} on "
            "neither side of the contrast."
        )
    models = {row["model"] for value in inferred_df["evidence"] for row in _evidence(value, "models") if "model" in row}
    if models:
        names = text.join(sorted(text.shorten(model, 60) for model in models))
        sentences.append(f"Answers were those of {names}, which are not compared here.")
    return sentences


def _describe_source(value: object) -> str:
    """The evidence that a label rests on, in words."""
    source_codes = value.split(", ") if isinstance(value, str) else []
    return " and ".join(_SOURCE_WORDS.get(code, text.shorten(code, 40)) for code in source_codes) or "an unknown source"


def _evidence(value: object, name: str) -> list[dict[str, Any]]:
    """One list of the evidence of a label, a JSON object; empty where it is anything else."""
    entries = json_object(value).get(name)
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _task_table(inferred_df: pd.DataFrame) -> ShownTable:
    """One row a task, surest last: what needs a look stands first."""
    rows = []
    for task, task_rows in inferred_df.groupby("task", sort=False):
        p = task_rows["p_reasoning"].to_numpy(dtype=float, na_value=np.nan)
        has_probability = bool(np.isfinite(p).any())
        mean = float(np.nanmean(p)) if has_probability else None
        # The item whose probability is the median's speaks for its task, with its interval and its reasons.
        median_item = task_rows.iloc[int(np.nanargmin(np.abs(p - np.nanmedian(p)))) if has_probability else 0]
        counts = Counter(task_rows["capability"].astype(str)).most_common()
        reasons = "; ".join(
            text.shorten(r.get("words", ""), 90) for r in _evidence(median_item["evidence"], "reasons")[:3]
        )
        cells = (
            TableCell(text.shorten(task, 60)),
            TableCell(", ".join(f"{name} {n:,}" if len(counts) > 1 else name for name, n in counts)),
            TableCell(text.percent(mean), numeric=True),
            TableCell(_format_interval(median_item), numeric=True),
            TableCell(text.count(len(p)), numeric=True),
            TableCell(_describe_source(median_item["source"])),
            TableCell(reasons),
        )
        rows.append((0.0 if mean is None else abs(mean - 0.5), cells))
    rows.sort(key=lambda row: row[0])
    return ShownTable(
        "Tasks that declare no capability, least sure first", _TASK_COLUMNS, tuple(cells for _, cells in rows)
    )


def _format_interval(median_item: pd.Series) -> str:
    """Of the task, where the evidence holds it, else of its middling item."""
    task = json_object(median_item["evidence"]).get("task")
    if isinstance(task, dict) and all(isinstance(task.get(end), int | float) for end in ("low", "high")):
        return text.interval(float(task["low"]), float(task["high"]))
    low, high = (None if pd.isna(median_item[name]) else float(median_item[name]) for name in ("conf_low", "conf_high"))
    return text.interval(low, high)


def _make_imputed_table(lookup: EstimateIndex, roles: Roles) -> ShownTable | None:
    """Each number with the labels as they are, and over draws of the labels; None where there is none."""
    row_by_question = {_question(row): row for row in lookup.rows if row.is_headline and row.weighting == "tasks"}
    pairs = [(row_by_question.get(_question(row)), row) for row in lookup.imputed]
    pairs = [(original, row) for original, row in pairs if not (row.refused and (original is None or original.refused))]
    if not pairs:
        return None
    numbered_names = numbered_models(roles.students)
    cells = [
        {
            "quantity": TableCell(row.declaration.title),
            "group": TableCell(row.group),
            "model": TableCell(numbered_names.get(row.model, row.model)),
            "labels as they are": TableCell("" if original is None else original.shown_with_interval, numeric=True),
            "labels drawn": TableCell(row.shown_with_interval, numeric=True, muted=row.refused),
            "variance from labels": TableCell(_variance_share(row), numeric=True),
            "contrast": TableCell(row.contrast_label),
        }
        for original, row in pairs[:_MAX_IMPUTED_ROWS]
    ]
    caption = "With labels as they are, then over draws of the labels by their probabilities"
    return make_collapsed_table(
        caption, cells, forced_columns=set(cells[0]) - {"model"}, n_left_out=len(pairs) - len(cells)
    )


def _question(row: EstimateView) -> tuple[str, ...]:
    """What a number and its repetition over draws of the labels have in common."""
    return row.quantity, row.level, row.group, row.model, row.contrast


def _variance_share(row: EstimateView) -> str:
    share = row.factors.get(LABEL_VARIANCE_FACTOR)
    return f"{100 * share:.0f}\u202f%" if isinstance(share, int | float) else ""


def _read_reliability_bins(measured: Mapping[str, Any]) -> list[tuple[float, float, float]]:
    """Mean belief, share of reasoning, and weight of every bin."""
    rows = measured.get("reliability")
    bins = []
    for row in rows if isinstance(rows, Sequence) and not isinstance(rows, str) else ():
        if isinstance(row, Mapping) and all(isinstance(row.get(name), int | float) for name in ("p", "share", "n")):
            bins.append((float(row["p"]), float(row["share"]), float(row["n"])))
    return [b for b in bins if 0 <= b[0] <= 1 and 0 <= b[1] <= 1 and b[2] > 0]


def _reliability_note(measured: Mapping[str, Any]) -> str:
    """What stands below the reliability diagram."""
    note_text = "Task families that were left out of the fit, each counted alike; the area of a point is its share."
    for name, label in (("auroc", "Area under the ROC curve"), ("ece", "Expected calibration error")):
        if isinstance(measured.get(name), int | float):
            note_text += f" {label} {measured[name]:.3f}."
    return note_text


def _draw_reliability(measured: Mapping[str, Any]) -> Markup | None:
    """The reliability diagram of the classifier; None where nothing was measured."""
    bins = _read_reliability_bins(measured)
    if not bins:
        return None
    belief, share, weight = np.array(bins).T  # each (bins,)
    belief, share = 100 * belief, 100 * share
    with svg.plot_style():
        title = "Reasoning among them, %"
        figure, axes = svg.make_figure(330, 300, title=title, left=44, right=14, top=34, bottom=44)
        colour = svg.COLOURS["reasoning"]
        axes.plot([0, 100], [0, 100], color=svg.INK, linewidth=1.0, linestyle=(0, (2, 3)), zorder=1)
        axes.plot(belief, share, color=colour, linewidth=1.4, zorder=2)
        svg.points(axes, belief, share, colour=colour, size=20 + 220 * weight / weight.sum(), zorder=3)
        axes.set(xlim=(-4, 104), ylim=(-4, 104), xticks=range(0, 101, 25), yticks=range(0, 101, 25))
        axes.set(xlabel="belief in reasoning, %", ylabel="")
        axes.grid(visible=True, axis="both")
        alt_text = "; ".join(f"of {a:.0f} % belief {b:.0f} % are reasoning" for a, b in zip(belief, share, strict=True))
        return svg.inline_svg(figure, prefix="reliability", label=f"Reliability of the classifier: {alt_text}")
