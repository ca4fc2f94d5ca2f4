"""Whether a change of the code moved any number: two checkouts analyse the same tables, compared row by row by codes.

``python -m tests.benchmarks.same_numbers PARENT [--demo DIR] [--work DIR]``

PARENT is a checkout of the commit before estimates had codes (acb4400), which said in prose what codes say now;
`in_codes` translates. Compared on the demo's tables (``capgap demo`` of the parent made them), on a cohort of 36
students × 12 tasks with repeats, missing cells and undeclared labels, and on the tables of ``reports/first-light``: the
same rows, estimates, intervals, p-values (to 1e-9), counts and status. Exit status 1 where anything differs.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-9
NUMBERS = ("estimate", "std_error", "df", "conf_low", "conf_high", "conf_level", "null_value", "p_value", "p_adjusted")
COUNTS = ("n_items", "n_clusters", "n_tasks", "n_students", "n_seeds")
KEY = (
    *("quantity", "level", "group", "model", "contrast", "roles", "recipe", "scale", "weighting", "subject"),
    *("estimator", "population_tasks", "population_students"),
)
ON_PURPOSE: tuple[str, ...] = ()
"""What differs on purpose, a sentence each, printed with every run."""

_OLD = """
import sys, json, pandas as pd
from capgap.analyze import analyze
from capgap.schema import Roles
folder = sys.argv[1]
tables = {n: pd.read_parquet(f"{folder}/{n}.parquet") for n in sys.argv[3].split(",")}
roles = Roles(**{k: tuple(v) if isinstance(v, list) else v for k, v in json.load(open(f"{folder}/roles.json")).items()})
analyze(tables.pop("outcomes"), roles, **tables).to_parquet(sys.argv[2])
"""
_NEW = _OLD.replace("from capgap.analyze import analyze", "from capgap.analysis import estimate_table as analyze")

_QUANTITY_ESTIMATORS = {
    **dict.fromkeys(("effect", "effect_difference", "coefficient", "spread"), "mixed_model"),
    **dict.fromkeys(("data_cost", "next_batch_gain", "relative_data_cost", "curve", "curve_point"), "learning_curve"),
    **dict.fromkeys(("n_patterns", "pattern", "pattern_excess"), "response_surfaces"),
    "failure_odds": "logistic_regression",
}
_ROADS = {
    "two-stage": "two_stage",
    "student jackknife": "student_jackknife",
    "task jackknife": "task_jackknife",
    "link with chance": "link_with_chance",
}
_SCALES = {"per step": "learning_curve_per_step", "target log-probability": "learning_curve_log_probability"}
_ROLE_NAMES = {"teacher", "student", "base", "control"}
_CONTRASTS = {
    "closure: knowledge - reasoning": "gap_closure",
    "gap: reasoning - knowledge": "gap",
    "retention: knowledge - reasoning": "retention",
}
_STUDENTS = (
    ("checkpoints trained by these recipes on bases like these", "these_recipes_bases_like_these"),
    ("checkpoints trained by these recipes", "these_recipes"),
    ("this recipe", "this_recipe"),
    ("these checkpoints", "these_checkpoints"),
)


def in_codes(old: pd.DataFrame) -> pd.DataFrame:
    """Estimates of the parent with its prose as codes: the columns of `KEY`."""
    out = old.copy()
    factors = [json.loads(text) if isinstance(text, str) else {} for text in old["factors"]]
    out["roles"] = [
        _json({k: v for k, v in f.items() if k in _ROLE_NAMES and m})
        for f, m in zip(factors, old["model"].notna(), strict=True)
    ]
    known = {"road", "by", "labels"}
    out["recipe"] = [
        _json({k: v for k, v in f.items() if k not in known and not (m and k in _ROLE_NAMES)})
        for f, m in zip(factors, old["model"].notna(), strict=True)
    ]
    out["estimator"] = [
        "multiple_imputation"
        if "labels" in f
        else _ROADS.get(f.get("road", ""), _SCALES.get(f.get("by", ""), _QUANTITY_ESTIMATORS.get(q, "paired")))
        for f, q in zip(factors, old["quantity"], strict=True)
    ]
    out["population_tasks"] = np.where(
        old["population"].str.endswith("tasks like these"), "tasks_like_these", "these_tasks"
    )
    out["population_students"] = [
        next((code for prose, code in _STUDENTS if str(text).startswith(prose)), "these_checkpoints")
        for text in old["population"]
    ]
    recipe = {"data_cost", "next_batch_gain", "relative_data_cost", "curve"}
    alone = old["model"].isna()
    out["subject"] = np.where(
        ~alone & (old["quantity"] != "curve_point"),
        "model",
        np.where((old["population"] == "this recipe, these tasks") | old["quantity"].isin(recipe), "recipe", "cohort"),
    )
    return out


def canonical(table: pd.DataFrame) -> pd.DataFrame:
    """The columns that name a row, spelt alike in both checkouts: contrasts as codes, only what the recipe says."""
    out = table.copy()
    if "recipe" not in out:
        own = {"factor", "level", "reference", "transform", "target", "target_scale", "label_variance_share"}
        own |= {"n_examples_from", "n_examples_to", "pattern", "term", "among", "error_type"}
        factors = [json.loads(text) if isinstance(text, str) else {} for text in out["factors"]]
        out["recipe"] = [_json({k: str(v) for k, v in f.items() if k not in own}) for f in factors]
        out["roles"] = [_json(json.loads(text)) if isinstance(text, str) else None for text in out["roles"]]
    out["contrast"] = out["contrast"].map(lambda text: _CONTRASTS.get(text, text), na_action="ignore")
    patterns = out["quantity"].isin(["pattern", "pattern_excess"])
    out.loc[patterns, "contrast"] = out.loc[patterns, "contrast"].map(lambda text: re.sub(r"\D.*", "", str(text)))
    # A point of a curve stands by its student in both; whom it is about is told by the model.
    out.loc[out["quantity"] == "curve_point", ["subject", "population_students"]] = "model", "these_checkpoints"
    return out[[*KEY, *NUMBERS, *COUNTS, "status"]]


def _json(content: dict) -> str | None:
    return json.dumps(content, sort_keys=True, ensure_ascii=False) if content else None


def differences(old: pd.DataFrame, new: pd.DataFrame) -> list[str]:
    """What differs between two tables in canonical form, a line each; rows of one key in the order of their numbers."""
    key = list(KEY)
    frames = []
    for table in (old, new):
        frame = table.copy()
        frame[key] = frame[key].astype(object).where(frame[key].notna(), "").astype(str)
        frame = frame.sort_values([*key, *NUMBERS], kind="stable")
        frames.append(frame.assign(n=frame.groupby(key).cumcount()).set_index([*key, "n"]))
    before, after = frames
    lines = [f"gone: {_named(index)}" for index in before.index.difference(after.index)]
    lines += [f"new: {_named(index)}" for index in after.index.difference(before.index)]
    common = before.index.intersection(after.index)
    one, two = before.loc[common], after.loc[common]
    for column in (*NUMBERS, *COUNTS):
        a, b = (frame[column].to_numpy(dtype=float, na_value=np.nan) for frame in (one, two))
        unlike = ~np.isclose(a, b, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
        lines += [f"{column} {a[i]} → {b[i]}: {_named(common[i])}" for i in np.flatnonzero(unlike)]
    unlike = (one["status"] != two["status"]).to_numpy()
    return lines + [f"status: {_named(common[i])}" for i in np.flatnonzero(unlike)]


def _named(index: tuple) -> str:
    return ", ".join(str(part) for part in index if part not in ("", 0))


def cohort(seed: int = 0) -> dict[str, pd.DataFrame | dict]:
    """36 students × 12 tasks of 40 items: repeats, missing cells, unreadable answers, undeclared labels, texts."""
    rng = np.random.default_rng(seed)
    models = [
        {
            **{"model": f"{adaptation}-{n}-{s}", "adaptation": adaptation, "n_examples": n, "seed": s, "data_seed": s},
            **{"supervision": "traces", "base": "base", "prompting": "plain"},
            "n_examples_by_capability": json.dumps({"knowledge": n // 2, "reasoning": n // 2}),
        }
        for adaptation in ("full", "lora")
        for n in (125, 250, 500, 1000, 2000, 4000)
        for s in range(3)
    ]
    everyone = [*models, {"model": "base"}, {"model": "teacher"}, {"model": "control"}]
    rows, items, labels = [], [], []
    for k in range(12):
        capability = ("knowledge", "reasoning")[k % 2]
        undeclared = k in (4, 5, 9)
        form = "choose" if (k // 2) % 2 else "generate"
        ease, task = rng.normal(0, 1, 40), rng.normal(0, 0.3)
        steps = rng.integers(1, 4, 40)
        for i in range(40):
            gold = "; ".join(f"{j} + {j} = {2 * j}" for j in range(1, 1 + steps[i]))
            items.append(
                {
                    "battery": "b",
                    "task": f"t{k}",
                    "item": str(i),
                    "prompt": f"{capability} of thing {i}",
                    "rationale": gold,
                }
            )
            if undeclared:
                p = float(np.clip((0.85 if capability == "reasoning" else 0.15) + rng.normal(0, 0.1), 0.02, 0.98))
                labels.append(
                    {
                        "task": f"t{k}",
                        "item": str(i),
                        "capability": "reasoning" if p > 0.5 else "knowledge",
                        "p_reasoning": p,
                        "conf_low": max(p - 0.2, 0),
                        "conf_high": min(p + 0.2, 1),
                        "source": "text",
                        "evidence": "{}",
                    }
                )
        for model in everyone:
            level = {"teacher": 2.2, "base": -1.5, "control": -0.5}.get(model["model"])
            if level is None:
                slope = {"knowledge": 0.5, "reasoning": 0.2}[capability]
                level = (
                    -1 + slope * np.log2(model["n_examples"] / 125) - 0.6 * (model["adaptation"] == "lora") * (k % 2)
                )
                level += rng.normal(0, 0.1)
            for repeat in range(2 if k == 3 else 1):
                right = rng.random(40) < expit(level + ease + task)
                for i in np.flatnonzero(rng.random(40) > 0.02):
                    status = "unparsed" if not right[i] and rng.random() < 0.02 else "scored"
                    answer = f"a{i}" if right[i] else f"w{rng.integers(3)}"
                    rows.append({
                        "model": model["model"], "battery": "b", "task": f"t{k}", "item": str(i), "repeat": repeat,
                        "capability": None if undeclared else capability, "domain": f"d{k // 4}", "format": form,
                        "cluster": f"c{i // 2}" if k == 7 else None, "score": float(right[i]), "status": status,
                        "chance": 0.25 if form == "choose" else 0.0,
                        "prediction": None if status == "unparsed" else answer,
                        "target": f"a{i}", "response": f"1 + 1 = {2 if right[i] else 3}, so {answer}",
                        "x_depth": float(steps[i]),
                        "target_logprob": float(-rng.exponential(1.0)) - 0.01,
                    })  # fmt: skip
    names = [model["model"] for model in models]
    roles = {
        "students": names,
        "teacher": "teacher",
        "base": dict.fromkeys(names, "base"),
        "control": dict.fromkeys(names, "control"),
    }
    return {"outcomes": pd.DataFrame(rows), "models": pd.DataFrame(models), "items": pd.DataFrame(items),
            "labels": pd.DataFrame(labels), "roles": roles}  # fmt: skip


def compare(parent: Path, folder: Path) -> list[str]:
    """Analyse the tables of a folder with both checkouts and compare."""
    tables = [name for name in ("outcomes", "models", "items", "labels") if (folder / f"{name}.parquet").is_file()]
    results = []
    for checkout, script, target in ((parent, _OLD, "old"), (ROOT, _NEW, "new")):
        out = folder / f"{target}.parquet"
        if not (target == "old" and out.is_file()):  # the parent does not change
            command = [sys.executable, "-c", script, str(folder), str(out), ",".join(tables)]
            subprocess.run(command, check=True, cwd=checkout, env={"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"})
        results.append(pd.read_parquet(out))
    print(f"{folder.name}: {len(results[0]):,} rows before, {len(results[1]):,} after")
    return differences(canonical(in_codes(results[0])), canonical(results[1]))


def _prepare(work: Path, demo: Path) -> list[Path]:
    """The folders of tables, with who is who."""
    folders = [work / "cohort"]
    folders[0].mkdir(parents=True, exist_ok=True)
    for name, content in cohort().items():
        if isinstance(content, dict):
            (folders[0] / "roles.json").write_text(json.dumps(content))
        else:
            content.to_parquet(folders[0] / f"{name}.parquet")
    for source in (demo, *(ROOT / "reports/first-light").glob("*/run.json")):
        source = source if source.is_dir() else source.parent
        target = work / source.name
        target.mkdir(exist_ok=True)
        for table in ("outcomes", "models", "items", "labels"):
            if (source / f"{table}.parquet").is_file():
                pd.read_parquet(source / f"{table}.parquet").to_parquet(target / f"{table}.parquet")
        (target / "roles.json").write_text(json.dumps(json.loads((source / "run.json").read_text())["roles"]))
        folders.append(target)
    return folders


def main() -> int:
    """Compare; the exit status says whether all numbers stood still."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parent", type=Path)
    parser.add_argument("--demo", type=Path, help="tables of `capgap demo`; default: PARENT/capgap-out/demo-0")
    parser.add_argument("--work", type=Path, default=Path(".venv/same-numbers"))
    asked = parser.parse_args()
    moved = 0
    for folder in _prepare(asked.work.resolve(), (asked.demo or asked.parent / "capgap-out/demo-0").resolve()):
        lines = compare(asked.parent.resolve(), folder)
        moved += len(lines)
        print("\n".join(f"  {line}" for line in lines[:40]) or "  no number moved")
        if len(lines) > 40:
            print(f"  … and {len(lines) - 40} more")
    print("\n".join(["On purpose:", *ON_PURPOSE]) if ON_PURPOSE else "")
    return int(moved > 0)


if __name__ == "__main__":
    sys.exit(main())
