"""How long the mixed model takes, and how much memory, beside other programs.

    python -m tests.benchmarks.mixed [--prototype FOLDER] [--size small|mid|big] [--packages]

``--prototype`` names a folder with the prototype's ``laplace.py``; ``big`` are two million outcomes, 100 students x
20,000 items. ``--packages`` adds `glmm`, `mixedlm` and statsmodels where they can be imported, each with what it can
fit.
Every program runs in a process of its own, so that memory is its own; ratios are within one run.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

from capgap.stats.mixed import fit_mixed
from tests.stats.mixed.world import CAPABILITY, FORMULA, Study, columns_of

SIZES = {"small": Study(24, 12, 50), "mid": Study(60, 20, 250), "big": Study(100, 20, 1000)}
OURS = ("five terms", "task slopes", "task slopes and alternatives")


def ours(size: str, what: str) -> dict[str, Any]:
    grid = SIZES[size].draw(0)
    before = _peak()
    began = time.perf_counter()
    fit = fit_mixed(FORMULA, grid, task_slopes=what != "five terms", alternatives=what.endswith("alternatives"))
    return {
        "seconds": time.perf_counter() - began,
        "peak MB": _peak(),
        "before MB": before,
        "coefficient": fit.coefficients[f"{CAPABILITY}:log(n_examples)"].estimate,
        "df": fit.coefficients[f"{CAPABILITY}:log(n_examples)"].df,
        "converged": fit.converged,
    }


def prototype(size: str, folder: str) -> dict[str, Any]:
    """Five terms with degrees of freedom."""
    sys.path.insert(0, folder)
    from laplace import CrossedLogit  # type: ignore[import-not-found]

    study = SIZES[size]
    grid, students = study.draw(0), study.students()
    x = np.column_stack(
        [np.log(students["n_examples"]), students["adaptation"] == "lora", np.log(students["n_params"])]
    )
    x = np.column_stack([np.ones(len(x)), x - x.mean(axis=0)])
    ability = np.where(np.arange(study.n_tasks) < study.n_tasks // 2, -0.5, 0.5)
    cells = np.stack([np.column_stack([x[:, :1], c * x[:, :1], x[:, 1:], c * x[:, 1:]]) for c in ability])
    data = {
        "Y": grid.successes.astype(float),
        "N": np.ones(grid.successes.shape),
        "K": study.n_tasks,
        "task": np.repeat(np.arange(study.n_tasks), study.items_per_task),
        "Xc": cells,
        "cap": ability,
    }
    before = _peak()
    began = time.perf_counter()
    fit = CrossedLogit(data, ("item", "task", "stu", "slope", "st")).fit()
    middle = time.perf_counter()
    df = fit.satterthwaite()
    return {
        "seconds": time.perf_counter() - began,
        "fit alone": middle - began,
        "peak MB": _peak(),
        "before MB": before,
        "coefficient": float(fit.beta_bc[5]),
        "df": float(df[5]),
    }


def package(size: str, name: str) -> dict[str, Any]:
    """What another package can fit of the five terms; student x capability as a grouping."""
    data = columns_of(SIZES[size].draw(0))
    cap = np.where(data["capability"] == "reasoning", 0.5, -0.5)
    n, p = (np.log(data[c]) for c in ("n_examples", "n_params"))
    frame = {
        "score": data["score"],
        "cap": cap,
        "n": n - n.mean(),
        "p": p - p.mean(),
        "a": np.where(data["adaptation"] == "lora", 0.5, -0.5),
        "item": data["item"].astype(str),
        "student": data["student"],
        "task": data["task"],
        "sc": np.char.add(data["student"].astype(str), data["capability"].astype(str)),
        "st": np.char.add(data["student"].astype(str), data["task"].astype(str)),
    }
    fixed = "score ~ cap + n + a + p + cap:n + cap:a + cap:p"
    random = " + (1|item) + (1|task) + (1|student) + (1|sc) + (1|st)"
    import pandas as pd

    table = pd.DataFrame(frame)
    began = time.perf_counter()
    if name == "glmm":
        import glmm  # type: ignore[import-not-found]

        fit = glmm.fit(frame, fixed + random, "binomial")
        found = float(dict(zip(fit.names, fit.beta, strict=True))["cap:n"])
        note = "five terms, maximum likelihood, no df"
    elif name == "mixedlm":
        import mixedlm  # type: ignore[import-not-found]

        fit = mixedlm.glmer(fixed + random, table, family=mixedlm.families.Binomial())
        found, note = float(fit.fixef()["cap:n"]), "five terms, maximum likelihood, no df"
    else:
        from statsmodels.genmod.bayes_mixed_glm import BinomialBayesMixedGLM

        terms = {g: f"0 + C({g})" for g in ("item", "task", "student")}
        model = BinomialBayesMixedGLM.from_formula(fixed, terms, table)
        fit = model.fit_vb()
        found, note = float(fit.fe_mean[model.exog_names.index("cap:n")]), "three terms, variational"
    return {"seconds": time.perf_counter() - began, "peak MB": _peak(), "coefficient": found, "note": note}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _child(arguments: list[str], limit: float) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.mixed", "--one", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"note": f"stopped after {limit:g} s"}
    if done.returncode:
        return {"note": (done.stderr.strip().splitlines() or ["failed"])[-1][:100]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prototype", default="")
    parser.add_argument("--size", choices=list(SIZES), default="big")
    parser.add_argument("--packages", action="store_true")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for each other package")
    parser.add_argument("--one", nargs=2, default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        what, size = given.one
        kind, _, rest = what.partition("=")
        run = {"ours": ours, "prototype": prototype, "package": package}[kind]
        print(json.dumps(run(size, rest)))
        return
    found = {f"capgap, {what}": _child([f"ours={what}", given.size], 3600) for what in OURS}
    if given.prototype:
        found["prototype"] = _child([f"prototype={given.prototype}", given.size], 3600)
    for name in ("glmm", "mixedlm", "statsmodels") if given.packages else ():
        found[name] = _child([f"package={name}", given.size], given.limit)
    base = found.get("prototype", {}).get("seconds")
    for name, row in found.items():
        ratio = f"{row['seconds'] / base:6.2f} x prototype" if base and "seconds" in row else ""
        print(f"{name:32}", ratio, json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}))


if __name__ == "__main__":
    main()
