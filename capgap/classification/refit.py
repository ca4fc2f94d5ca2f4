"""Refit of the text model to a corpus folder: ``python -m capgap.classification.refit CORPUS``.

Writes ``text_model.json`` (small, plain JSON), and beside it what `reports/classifier` holds: ``README.md`` with the
table of families, ``families.csv``, ``reliability.csv`` and ``confusion.json``. No text of an item is written.
"""

import argparse
import csv
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from capgap.classification.coefficients import TextModelCoefficients
from capgap.classification.corpus import ItemFamily, read_corpus
from capgap.classification.design_matrices import make_design
from capgap.classification.evidence import ItemText
from capgap.classification.exercises import make_exercise_families
from capgap.classification.fitting import TUNING_GRID, FitSettings, fit, leave_families_out, spread
from capgap.classification.metrics import ClassifierMetrics, ItemFamilyMetrics, compute_held_out_metrics
from capgap.classification.text_model import TextModel
from capgap.errors import CapgapError, TableError, UsageError

__all__ = ["RefitResult", "read_pairs", "refit", "write_report"]


@dataclass(frozen=True)
class RefitResult:
    """Coefficients, their metrics, and what they were fitted to."""

    coefficients: TextModelCoefficients
    metrics: ClassifierMetrics
    families: tuple[ItemFamily, ...]
    """Measured families and those that only help."""
    chosen: tuple[FitSettings, ...]
    """Settings that were chosen, for each family that was left out."""
    seconds: float


def refit(
    corpus_folder: str | Path,
    *,
    with_exercises: bool = True,
    limit: int = 150,
    seed: int = 0,
    grid: Sequence[FitSettings] = TUNING_GRID,
) -> RefitResult:
    """Fit the text model to a corpus folder and measure it on families left out.

    Parameters
    ----------
    corpus_folder
        See `read_corpus`.
    with_exercises
        Whether capgap's own exercises help to fit.
    limit
        Items of a family that a fit sees.
    seed
        Of that draw and of the exercises.
    grid
        Settings to choose from.

    Raises
    ------
    TableError
        The corpus cannot be read.
    EstimationError
        It has too few families.
    """
    start = time.perf_counter()
    item_families = (*read_corpus(corpus_folder), *(make_exercise_families(seed) if with_exercises else ()))
    design = make_design(item_families)
    predictions = leave_families_out(design, limit=limit, seed=seed, grid=grid)
    metrics = compute_held_out_metrics(design, predictions)
    origin = {
        "date": datetime.now(UTC).date().isoformat(),
        "families": len(design.measured),
        "helping_families": len(item_families) - len(design.measured),
        "items": len(design.family),
        "measured": _rounded_metrics(metrics),
    }
    coefficients, _ = fit(design, spreads=spread(design, predictions), origin=origin, limit=limit, seed=seed, grid=grid)
    seconds = time.perf_counter() - start
    return RefitResult(coefficients, metrics, item_families, predictions.settings, seconds)


def _rounded_metrics(metrics: ClassifierMetrics) -> dict[str, object]:
    """The metrics that a report shows beside labels that rest on the model; of families that no fit had seen."""
    return {
        "auroc": round(metrics.auroc, 4),
        "accuracy": round(metrics.accuracy, 4),
        "ece": round(metrics.ece, 4),
        "reliability": [{"p": round(p, 4), "share": round(share, 4), "n": round(n, 5)} for p, share, n in metrics.bins],
        "confusion": _confusion(metrics),
    }


def read_pairs(path: str | Path) -> list[tuple[str, ItemText, ItemText]]:
    """Minimal pairs, items alike in words: topic, the item of knowledge, the item of reasoning.

    Raises
    ------
    TableError
        The file is no list of such pairs.
    """
    import yaml

    try:
        rows = yaml.safe_load(Path(path).read_text(encoding="utf-8"))["pairs"]
        return [(str(row["topic"]), _question(row["knowledge"]), _question(row["reasoning"])) for row in rows]
    except (OSError, yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise TableError(f"{path}: expected `pairs`, each with topic, knowledge and reasoning ({error!r}).") from error


def _question(entry: object) -> ItemText:
    if isinstance(entry, dict):
        return ItemText(str(entry["text"]), tuple(map(str, entry.get("choices", ()))))
    return ItemText(str(entry))


def write_report(folder: str | Path, result: RefitResult, *, command: str, pairs: str | Path | None = None) -> None:
    """Write the report: README.md with the table of families, and its data.

    Parameters
    ----------
    folder
        Where; made if it is not there.
    result
        From `refit`.
    command
        The command that made it, as the table says.
    pairs
        A file of pairs, see `read_pairs`; none are measured without it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    metrics = result.metrics
    rows = sorted(metrics.families, key=lambda row: (row.reasoning, row.accuracy))
    family_rows = [
        [row.family, _label_name(row.reasoning), row.n, *(f"{x:.4f}" for x in (row.accuracy, row.mean_p, row.auroc))]
        for row in rows
    ]
    _write_csv(folder / "families.csv", "family,label,n,accuracy,mean_p_reasoning,auroc", family_rows)
    bins = [[f"{value:.6f}" for value in reliability_bin] for reliability_bin in metrics.bins]
    _write_csv(folder / "reliability.csv", "mean_p_reasoning,share_reasoning,weight", bins)
    (folder / "confusion.json").write_text(json.dumps(_confusion(metrics), indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_readme_md(result, rows, command, pairs), encoding="utf-8")


def _write_csv(path: Path, header: str, rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header.split(","), *rows])


def _confusion(metrics: ClassifierMetrics) -> dict[str, object]:
    return {
        "note": "Items of families that no fit had seen, families counting alike; rows: truth, columns: called so.",
        "knowledge": dict(zip(("knowledge", "reasoning"), metrics.confusion[0], strict=True)),
        "reasoning": dict(zip(("knowledge", "reasoning"), metrics.confusion[1], strict=True)),
    }


def _label_name(reasoning: bool) -> str:
    return "reasoning" if reasoning else "knowledge"


def _compare_goals(result: RefitResult, pairs: str | Path | None) -> tuple[list[tuple[str, str, str, bool]], list[str]]:
    """Goals (name, reached, wanted, met), and the items of pairs that are on the wrong side."""
    metrics = result.metrics
    low = [row.family for row in metrics.families if row.accuracy < 0.7]
    auroc, accuracy, ece, balanced_ece = metrics.auroc, metrics.accuracy, metrics.ece, metrics.ece_balanced
    goal_rows = [
        ("AUROC, pooled out-of-family, families weighted equally", f"{auroc:.3f}", "≥ 0.97", auroc >= 0.97),
        ("accuracy, over families within a label, then labels", f"{accuracy:.1%}", "≥ 92 %", accuracy >= 0.92),
        ("families under 70 %", f"{len(low)} ({', '.join(low) or 'none'})", "≤ 3", len(low) <= 3),
        ("calibration error, ten bins, families counting alike", f"{ece:.3f}", "≤ 0.05", ece <= 0.05),
        ("the same, labels counting alike too", f"{balanced_ece:.3f}", "≤ 0.05", balanced_ece <= 0.05),
    ]
    missed: list[str] = []
    if pairs is not None:
        pair_accuracy, missed = _score_pairs(TextModel(result.coefficients), pairs)
        goal_rows.append(("pairs alike in words, items right", f"{pair_accuracy:.1%}", "≥ 85 %", pair_accuracy >= 0.85))
    return goal_rows, missed


def _readme_md(result: RefitResult, rows: Sequence[ItemFamilyMetrics], command: str, pairs: str | Path | None) -> str:
    """The report's page, from the template beside this module."""
    goal_rows, missed = _compare_goals(result, pairs)
    settings = Counter(result.chosen).most_common()
    template = Path(__file__).with_name("refit_report.md").read_text(encoding="utf-8")
    text = template.format(
        about=result.coefficients.provenance,
        coefficients=result.coefficients,
        metrics=result.metrics,
        minutes=result.seconds / 60,
        command=command,
        n_families=len(rows),
        goals="\n".join(
            f"| {name} | {value} | {target} | {'yes' if met else '**no**'} |" for name, value, target, met in goal_rows
        ),
        families="\n".join(
            f"| {row.family} | {_label_name(row.reasoning)} | {row.n:,} | {row.accuracy:.1%}"
            f" | {row.mean_p:.2f} | {row.auroc:.3f} |"
            for row in rows
        ),
        settings="; ".join(f"{s.evidence:g}, {s.words:g}, {s.exercise_weight:g} ({n} times)" for s, n in settings),
    )
    if missed:
        text += f"\nPairs with an item on the wrong side (topic: which): {'; '.join(missed)}.\n"
    return text.replace("%|", "% |")


def _score_pairs(model: TextModel, path: str | Path) -> tuple[float, list[str]]:
    """Accuracy over the items of pairs, and which are wrong."""
    missed = []
    rows = read_pairs(path)
    for pair_topic, knowledge, reasoning in rows:
        knowledge_logit, reasoning_item_logit = (evidence.logit for evidence in model.evidence([knowledge, reasoning]))
        if knowledge_logit >= 0:
            missed.append(f"{pair_topic}: knowledge")
        if reasoning_item_logit <= 0:
            missed.append(f"{pair_topic}: reasoning")
    return 1 - len(missed) / (2 * len(rows)), missed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 2 where the user can mend it."""
    parser = argparse.ArgumentParser(prog="python -m capgap.classification.refit", description=__doc__.split("\n\n")[0])
    parser.add_argument("corpus", help="folder of labelled families")
    parser.add_argument("--out", default="classifier", help="where the report is written; default: classifier")
    parser.add_argument("--model", help="where the coefficients are written; default: text_model.json in --out")
    parser.add_argument("--pairs", help="a YAML file of pairs to be told apart")
    parser.add_argument("--limit", type=int, default=150, help="items of a family that a fit sees; default: 150")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-exercises", action="store_true", help="fit on the corpus alone")
    options = parser.parse_args(arguments)
    try:
        if options.limit < 1:
            raise UsageError(f"--limit {options.limit}: expected a number of items above zero.")
        result = refit(options.corpus, with_exercises=not options.no_exercises, limit=options.limit, seed=options.seed)
        out = Path(options.out)
        words = sys.argv[1:] if arguments is None else list(arguments)
        write_report(out, result, command=" ".join([parser.prog, *words]), pairs=options.pairs)
        model = Path(options.model) if options.model else out / "text_model.json"
        model.write_text(result.coefficients.to_json(), encoding="utf-8")
    except CapgapError as error:
        print(error, file=sys.stderr)
        return 2
    metrics = result.metrics
    print(f"{out / 'README.md'}: AUROC {metrics.auroc:.3f}, accuracy {metrics.accuracy:.1%}; {model}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
