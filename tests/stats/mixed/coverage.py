"""Coverage of the mixed model's intervals.

    python -m tests.stats.mixed.coverage REPLICATES FILE [SECONDS] [STUDENTS,STUDENTS]

Every replicate appends a line to FILE; what is there is not done again, so that a run can be cut and resumed.
Replicates go round all cells, hence cells are equally far at any time. The table of FILE is printed at the end.
"""

import csv
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import stats

from capgap.stats import holm
from capgap.stats.mixed import fit_mixed
from tests.stats.mixed.world import ADAPTATION, CAPABILITY, FORMULA, TRUTH, Study

FLOOR = 0.94
"""A cell fails where one of its three interactions covers significantly less (one-sided, Holm over all)."""
NONE = {"student_capability": 0.0, "student_task": 0.0, "task_slope": 0.0}
VARIANCES = {
    "all": {},
    "none": NONE,
    "student x capability": {**NONE, "student_capability": 0.3},
    "student x task": {**NONE, "student_task": 0.25},
    "task slopes": {**NONE, "task_slope": 0.1},
    "all, 30 % missing": {"missing": 0.3},
}
SCENARIOS = {(n, name): replace(Study(n), **change) for n in (12, 24, 60) for name, change in VARIANCES.items()}
WATCHED = {
    "capability": CAPABILITY,
    "n_examples": f"{CAPABILITY}:log(n_examples)",
    "adaptation": f"{CAPABILITY}:{ADAPTATION}",
    "n_params": f"{CAPABILITY}:log(n_params)",
}
"""The main effect and the interactions; that with adaptation is truly zero."""
FIELDS = [
    "students",
    "variances",
    "replicate",
    "seconds",
    "converged",
    *(f"{n}_{w}" for n in WATCHED for w in ("hit", "width", "df")),
]


def replicate(study: Study, seed: int) -> dict[str, float]:
    """One fit: whether each interval holds the truth, and how wide it is; NaN where it was refused."""
    began = time.perf_counter()
    fit = fit_mixed(FORMULA, study.draw(seed), alternatives=False)
    row: dict[str, float] = {"seconds": time.perf_counter() - began, "converged": float(fit.converged)}
    for name, coefficient in WATCHED.items():
        found = fit.coefficients.get(coefficient)
        known = found is not None and found.status == "ok"
        row[f"{name}_hit"] = float(found.conf_low <= TRUTH[coefficient] <= found.conf_high) if known else np.nan
        row[f"{name}_width"] = found.conf_high - found.conf_low if known else np.nan
        row[f"{name}_df"] = found.df if known else np.nan
    return row


def simulate(n_replicates: int, file: Path, seconds: float, sizes: set[int]) -> None:
    """Do what FILE does not hold yet."""
    began = time.perf_counter()
    done = {(int(r["students"]), r["variances"], int(r["replicate"])) for r in _read(file)}
    with file.open("a", newline="") as handle:
        writer = csv.DictWriter(handle, FIELDS)
        if not done:
            writer.writeheader()
        for r in range(n_replicates):
            for index, ((n, name), study) in enumerate(SCENARIOS.items()):
                if n not in sizes or (n, name, r) in done:
                    continue
                if time.perf_counter() - began > seconds:
                    return
                found = replicate(study, 1_000_000 * index + r)
                writer.writerow({"students": n, "variances": name, "replicate": r, **found})
                handle.flush()


def _read(file: Path) -> Iterator[dict[str, str]]:
    if file.exists():
        with file.open(newline="") as handle:
            yield from csv.DictReader(handle)


def table(file: Path) -> str:
    """The Markdown table of what FILE holds."""
    rows = list(_read(file))
    lines = [
        "| students | extra variances | replicates | coverage: capability | x n_examples | x n_params | x adaptation "
        "| type-I error | MC s.e. | median width | median df | refused | not converged | Holm p |",
        "|" + "---|" * 14,
    ]
    cells, p_values = [], []
    for n, name in SCENARIOS:
        part = [r for r in rows if (int(r["students"]), r["variances"]) == (n, name)]
        if not part:
            continue
        column = {f: np.array([float(r[f]) for r in part]) for f in FIELDS[3:]}
        hits = {w: column[f"{w}_hit"] for w in WATCHED}
        known = int(np.isfinite(hits["adaptation"]).sum())
        p_values.extend(stats.binom.cdf(np.nansum(h), known, FLOOR) for w, h in hits.items() if w != "capability")
        cells.append((n, name, part, column, hits, known))
    for (n, name, part, column, hits, known), p in zip(cells, holm(p_values).reshape(-1, 3).min(axis=1), strict=True):
        share = {w: np.nanmean(h) for w, h in hits.items()}
        error = np.sqrt(share["adaptation"] * (1 - share["adaptation"]) / known)
        lines.append(
            f"| {n} | {name} | {len(part)} | {share['capability']:.3f} | {share['n_examples']:.3f} | "
            f"{share['n_params']:.3f} | {share['adaptation']:.3f} | {1 - share['adaptation']:.3f} | {error:.3f} | "
            f"{np.nanmedian(column['n_examples_width']):.3f} | {np.nanmedian(column['n_examples_df']):.1f} | "
            f"{len(part) - known} | {int((column['converged'] == 0).sum())} | {p:.3f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    where = Path(arguments[1])
    limit = float(arguments[2]) if len(arguments) > 2 else np.inf
    wanted = {int(n) for n in arguments[3].split(",")} if len(arguments) > 3 else {12, 24, 60}
    simulate(int(arguments[0]), where, limit, wanted)
    print(table(where))
