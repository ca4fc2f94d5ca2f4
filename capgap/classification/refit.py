"""One command from a corpus folder to coefficients and a table: ``python -m capgap.classification.refit CORPUS``.

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

from capgap.classification.coefficients import Coefficients
from capgap.classification.corpus import ItemFamily, read_corpus
from capgap.classification.design_matrices import make_design
from capgap.classification.evidence import ItemText
from capgap.classification.exercises import exercises
from capgap.classification.fitting import GRID, FitSettings, fit, leave_families_out, spread
from capgap.classification.metrics import ClassifierMetrics, classifier_metrics
from capgap.classification.text_model import TextModel
from capgap.errors import CapgapError, TableError, UsageError

__all__ = ["RefitResult", "read_pairs", "refit", "write_report"]


@dataclass(frozen=True)
class RefitResult:
    """What a refit gives."""

    coefficients: Coefficients
    classifier_metrics: ClassifierMetrics
    families: tuple[ItemFamily, ...]
    """Measured families and those that only help."""
    chosen: tuple[FitSettings, ...]
    """Settings that were chosen, for each family that was left out."""
    seconds: float


def refit(
    corpus: str | Path, *, own: bool = True, limit: int = 150, seed: int = 0, grid: Sequence[FitSettings] = GRID
) -> RefitResult:
    """Fit the text model to a corpus folder and measure it on families left out.

    Parameters
    ----------
    corpus
        See `read_corpus`.
    own
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
    families = (*read_corpus(corpus), *(exercises(seed) if own else ()))
    design = make_design(families)
    left_out = leave_families_out(design, limit=limit, seed=seed, grid=grid)
    found = classifier_metrics(design, left_out)
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "families": len(design.measured),
        "helping_families": len(families) - len(design.measured),
        "items": len(design.family),
        "measured": _measured(found),
    }
    coefficients, _ = fit(design, spreads=spread(design, left_out), about=about, limit=limit, seed=seed, grid=grid)
    seconds = time.perf_counter() - start
    return RefitResult(coefficients, found, families, left_out.settings, seconds)


def _measured(found: ClassifierMetrics) -> dict[str, object]:
    """What a report tells of the model beside the labels that rest on it; families that no fit had seen."""
    return {
        "auroc": round(found.auroc, 4),
        "accuracy": round(found.accuracy, 4),
        "ece": round(found.ece, 4),
        "reliability": [{"p": round(p, 4), "share": round(share, 4), "n": round(n, 5)} for p, share, n in found.bins],
        "confusion": _confusion(found),
    }


def read_pairs(path: str | Path) -> list[tuple[str, ItemText, ItemText]]:
    """Pairs of items alike in words: topic, the one of knowledge, the one of reasoning.

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
    """Write the table and its data.

    Parameters
    ----------
    folder
        Where; made if it is not there.
    result
        From `refit`.
    command
        The command that made it, as the table says.
    pairs
        A file of pairs, see `read_pairs`; none are told without it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    found = result.classifier_metrics
    rows = sorted(found.families, key=lambda row: (row.reasoning, row.accuracy))
    with (folder / "families.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["family", "label", "n", "accuracy", "mean_p_reasoning", "auroc"])
        for row in rows:
            numbers = [f"{value:.4f}" for value in (row.accuracy, row.mean_p, row.auroc)]
            writer.writerow([row.family, _label(row.reasoning), row.n, *numbers])
    with (folder / "reliability.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["mean_p_reasoning", "share_reasoning", "weight"])
        writer.writerows([f"{value:.6f}" for value in one] for one in found.bins)
    (folder / "confusion.json").write_text(json.dumps(_confusion(found), indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_readme(result, command, pairs), encoding="utf-8")


def _confusion(found: ClassifierMetrics) -> dict[str, object]:
    return {
        "note": "Items of families that no fit had seen, families counting alike; rows: truth, columns: called so.",
        "knowledge": dict(zip(("knowledge", "reasoning"), found.confusion[0], strict=True)),
        "reasoning": dict(zip(("knowledge", "reasoning"), found.confusion[1], strict=True)),
    }


def _label(reasoning: bool) -> str:
    return "reasoning" if reasoning else "knowledge"


def _goals(result: RefitResult, pairs: str | Path | None) -> tuple[list[tuple[str, str, str, bool]], list[str]]:
    """What is wanted and reached, each with whether it is met; and the items of pairs that are on the wrong side."""
    found = result.classifier_metrics
    low = [row.family for row in found.families if row.accuracy < 0.7]
    goals = [
        ("AUROC, pooled out-of-family, families weighted equally", f"{found.auroc:.3f}", "≥ 0.97", found.auroc >= 0.97),
        (
            "accuracy, over families within a label, then labels",
            f"{found.accuracy:.1%}",
            "≥ 92 %",
            found.accuracy >= 0.92,
        ),
        ("families under 70 %", f"{len(low)} ({', '.join(low) or 'none'})", "≤ 3", len(low) <= 3),
        ("calibration error, ten bins, families counting alike", f"{found.ece:.3f}", "≤ 0.05", found.ece <= 0.05),
        ("the same, labels counting alike too", f"{found.ece_balanced:.3f}", "≤ 0.05", found.ece_balanced <= 0.05),
    ]
    missed: list[str] = []
    if pairs is not None:
        right, missed = _pairs(TextModel(result.coefficients), pairs)
        goals.append(("pairs alike in words, items right", f"{right:.1%}", "≥ 85 %", right >= 0.85))
    return goals, missed


def _readme(result: RefitResult, command: str, pairs: str | Path | None) -> str:
    found, about = result.classifier_metrics, result.coefficients.about
    goals, missed = _goals(result, pairs)
    lines = [
        "# The text model on families that it has not seen",
        "",
        f"Made on {about['date']} in {result.seconds / 60:.0f} minutes on one core by",
        "",
        f"    {command}",
        "",
        f"Each of {len(found.families)} families was predicted by a fit that had seen neither it nor its kind.",
        "Penalty and calibration were chosen by leaving out further families among the rest.",
        f"{about['helping_families']} families of capgap's own exercises help to fit and are not measured.",
        "Labels and their reasons: `capgap/classification/corpus.yaml`, written before the features.",
        "",
        "| goal | reached | wanted | |",
        "|---|---|---|---|",
        *(f"| {name} | {value} | {wanted} | {'yes' if met else '**no**'} |" for name, value, wanted, met in goals),
        "",
        f"Before calibration, which differs a little between families, the AUROC is {found.auroc_uncalibrated:.3f}.",
        "AUROC of a family is that of its items against all items of the other label, families of which count alike.",
        "",
        "| family | label | items | accuracy | mean p(reasoning) | AUROC |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row.family} | {_label(row.reasoning)} | {row.n:,} | {row.accuracy:.1%}"
            f" | {row.mean_p:.2f} | {row.auroc:.3f} |"
            for row in sorted(found.families, key=lambda row: (row.reasoning, row.accuracy))
        ),
        "",
        f"Mean log-odds of families of a label have a standard deviation of {result.coefficients.family_sd:.2f}, items",
        f"around the mean of their family one of {result.coefficients.item_sd:.2f}.",
        "Called right of truly knowledge / truly reasoning, families counting alike: "
        f"{found.confusion[0][0]:.1%} / {found.confusion[1][1]:.1%} (`confusion.json`).",
        "Chosen settings (evidence, words, own): "
        + "; ".join(
            f"{s.evidence:g}, {s.words:g}, {s.own:g} ({n} times)" for s, n in Counter(result.chosen).most_common()
        )
        + ".",
    ]
    if missed:
        lines += ["", "Pairs with an item on the wrong side (topic: which): " + "; ".join(missed) + "."]
    return "\n".join(lines).replace("%|", "% |") + "\n"


def _pairs(model: TextModel, path: str | Path) -> tuple[float, list[str]]:
    """Share of items of pairs that are right, and which are not."""
    missed = []
    rows = read_pairs(path)
    for topic, knowledge, reasoning in rows:
        of_knowledge, of_reasoning = (one.logit for one in model.evidence([knowledge, reasoning]))
        if of_knowledge >= 0:
            missed.append(f"{topic}: knowledge")
        if of_reasoning <= 0:
            missed.append(f"{topic}: reasoning")
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
    asked = parser.parse_args(arguments)
    try:
        if asked.limit < 1:
            raise UsageError(f"--limit {asked.limit}: expected a number of items above zero.")
        result = refit(asked.corpus, own=not asked.no_exercises, limit=asked.limit, seed=asked.seed)
        out = Path(asked.out)
        words = sys.argv[1:] if arguments is None else list(arguments)
        write_report(out, result, command=" ".join([parser.prog, *words]), pairs=asked.pairs)
        model = Path(asked.model) if asked.model else out / "text_model.json"
        model.write_text(result.coefficients.to_json(), encoding="utf-8")
    except CapgapError as error:
        print(error, file=sys.stderr)
        return 2
    metrics = result.classifier_metrics
    print(f"{out / 'README.md'}: AUROC {metrics.auroc:.3f}, accuracy {metrics.accuracy:.1%}; {model}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
