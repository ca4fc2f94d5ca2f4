"""Outcomes and estimates of an invented comparison, in the codes that `capgap.analysis` writes; a parser of pages."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from html.parser import HTMLParser

import numpy as np
import pandas as pd

from capgap.schema import ESTIMATES, ITEMS, MODELS, OUTCOMES, Roles, validate

TASKS = (
    ("capitals", "knowledge", "geography", "choose"),
    ("elements", "knowledge", "science", "generate"),
    ("authors", "knowledge", "culture", "choose"),
    ("chains", "reasoning", "arithmetic", "generate"),
    ("booleans", "reasoning", "logic", "choose"),
    ("states", "reasoning", "tracking", "generate"),
    ("two_hops", "mixed", "composition", "choose"),
)
_SKILL = {  # teacher, base, student, control, by capability
    "knowledge": (0.93, 0.30, 0.88, 0.80),
    "reasoning": (0.90, 0.24, 0.48, 0.44),
    "mixed": (0.85, 0.26, 0.60, 0.55),
    None: (0.80, 0.30, 0.55, 0.50),
}


VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Tags, text and machine-readable numbers of a page; nesting must close."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.text, self.data, self.open = [], [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag == "data":
            self.data.append(float(dict(attrs)["value"]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text.append(data)


@dataclass(frozen=True)
class Comparison:
    """All that `write_report` takes."""

    outcomes: pd.DataFrame
    estimates: pd.DataFrame
    roles: Roles
    run: dict = field(default_factory=dict)
    items: pd.DataFrame | None = None
    models: pd.DataFrame | None = None
    labels: pd.DataFrame | None = None

    def arguments(self, **changes) -> dict:
        return {each.name: getattr(self, each.name) for each in fields(self)} | changes


def comparison(
    *,
    tasks: Sequence[tuple] = TASKS,
    n_items: int = 60,
    students: Sequence[str] = ("student",),
    teacher: str | None = "teacher",
    base: str | None = "base",
    control: str | None = "control",
    word: str = "word",
    seed: int = 0,
) -> Comparison:
    """An invented comparison; `word` stands in every prompt, target, response, note and name of a thing."""
    rng = np.random.default_rng(seed)
    roles = Roles(
        students=tuple(students),
        teacher=teacher,
        base=dict.fromkeys(students, base) if base else {},
        control=dict.fromkeys(students, control) if control else {},
    )
    skill_of = {teacher: 0, base: 1, control: 3} | dict.fromkeys(students, 2)
    rows, items = [], []
    for task, capability, domain, kind in tasks:
        difficulty = rng.normal(0, 0.8, n_items)
        for i in range(n_items):
            items.append((task, f"{task}-{i}", f"Q: {word}, item {i} of {task}?\nA:", f"{word} {i}"))
        for model in roles.names:
            level = _SKILL[capability][skill_of[model]] - 0.02 * (
                list(students).index(model) if model in students else 0
            )
            depth = np.arange(n_items) % 4 + 1
            pull = np.log(level / (1 - level)) - difficulty - (0.7 * (depth - 2) if capability == "reasoning" else 0)
            right = rng.random(n_items) < 1 / (1 + np.exp(-pull))
            for i in range(n_items):
                rows.append(
                    _outcome(model, task, capability, domain, kind, i, bool(right[i]), int(depth[i]), word, rng)
                )
    outcomes = validate(pd.DataFrame(rows), OUTCOMES)
    frame = pd.DataFrame(items, columns=["task", "item", "prompt", "target"]).assign(battery="pocket")
    return Comparison(
        outcomes,
        validate(pd.DataFrame(_estimates(outcomes, roles, word)), ESTIMATES),
        roles,
        run=_run(roles, outcomes),
        items=validate(frame, ITEMS),
        models=_models(roles),
    )


def _outcome(model, task, capability, domain, kind, i, right, depth, word, rng) -> dict:
    answer = f"{word} {i if right else i + 1}"
    choose = kind == "choose"
    return {
        "model": model,
        "battery": "pocket",
        "task": task,
        "capability": capability,
        "domain": domain,
        "item": f"{task}-{i}",
        "cluster": f"{task}-template-{i % 12}",
        "format": kind,
        "score": float(right),
        "status": "scored" if right or choose or rng.random() > 0.04 else "unparsed",
        "chance": 0.25 if choose else 0.0,
        "margin": abs(rng.normal(1, 1)) if choose else None,
        "margin_target": (1 if right else -1) * abs(rng.normal(1, 1)) if choose else None,
        "prediction": answer,
        "target": f"{word} {i}",
        "response": answer if choose else f"First {word}, then more. The answer is {answer}",
        "x_depth": depth,
    }


def _estimates(outcomes: pd.DataFrame, roles: Roles, word: str) -> list[dict]:
    rows: list[dict] = []
    places = [("battery", "battery"), ("capability", "capability"), ("domain", "domain"), ("task", "task")]
    for level, column in places:
        for group, part in outcomes.groupby(column, sort=False):
            _group(rows, part, level, str(group), roles, word)
    for (task, depth), part in outcomes.groupby(["task", "x_depth"], sort=False):
        _group(rows, part, "slice", f"{task}: x_depth={depth}", roles, word)
    for model in roles.names:
        for task, part in outcomes[outcomes["model"] == model].groupby("task", sort=False):
            for quantity, share in (("unparsed", float((part["status"] == "unparsed").mean())), ("cut_off", 0.0)):
                rows.append(_row(quantity, "task", str(task), model, share, None, None, part, "items"))
    contrasts = ["gap", *(["gap_closure"] if roles.base else [])]
    for student in roles.students if roles.teacher else ():
        for i, contrast in enumerate(contrasts):
            row = _row("capability_contrast", "battery", "pocket", student, 0.41 - i / 10, 0.3, 0.52, outcomes, "tasks")
            rows.append(row | {"contrast": contrast, "p_value": 0.0003})
    return rows


def _group(rows: list[dict], part: pd.DataFrame, level: str, group: str, roles: Roles, word: str) -> None:
    weighting = "items" if level in ("task", "slice") else "tasks"
    wide = part.pivot(index="item", columns="model", values="score")
    chance = float(part["chance"].mean())
    for model in roles.names:
        mean, half = _mean(wide[model])
        rows.append(
            _row("accuracy", level, group, model, mean, mean - half, mean + half, part, weighting)
            | {"null_value": chance}
        )
    if roles.teacher is None:
        return
    for student in roles.students:
        base, control = roles.base.get(student), roles.control.get(student)
        pairs = {"gap": (roles.teacher, student), "base_gap": (roles.teacher, base)}
        if level != "slice":
            pairs |= {"gain": (student, base), "teacher_effect": (student, control)}
        for quantity, (minuend, subtrahend) in pairs.items():
            if subtrahend is None:
                continue
            mean, half = _mean(wide[minuend] - wide[subtrahend])
            row = _row(quantity, level, group, student, mean, mean - half, mean + half, part, weighting)
            rows.append(row | {"roles": json.dumps({"teacher": roles.teacher, "student": student})})
        if level == "slice":
            continue
        _ratios(rows, wide, level, group, student, roles, chance, part, word)
        agreement = float((wide[roles.teacher] == wide[student]).mean())
        for quantity, value in (("agreement", agreement), ("fidelity", agreement - 0.4), ("error_inheritance", 0.21)):
            row = _row(quantity, level, group, student, value, value - 0.06, value + 0.06, part, weighting)
            rows.append(row | {"null_value": {"agreement": 0.4, "error_inheritance": 0.12}.get(quantity)})


def _ratios(rows, wide, level, group, student, roles, chance, part, word) -> None:
    teacher = wide[roles.teacher].mean()
    for quantity, zero in (("gap_closure", roles.base.get(student)), ("retention", chance)):
        if zero is None:
            continue
        floor = zero if isinstance(zero, float) else wide[zero].mean()
        value = (wide[student].mean() - floor) / (teacher - floor) if teacher - floor > 0.02 else None
        row = _row(quantity, level, group, student, value, None, None, part, "tasks") | {"scale": "ratio"}
        if value is None or group == "two_hops":
            row |= {"estimate": None, "status": "refused", "reason": "denominator_near_zero"}
            row |= {"note": f"teacher and base cannot be told apart ({word})"}
        else:
            row |= {"conf_low": value - 0.09, "conf_high": None if group == "chains" else value + 0.08}
            row |= {"status": "open" if group == "chains" else "ok", "method": "Fieller"}
        rows.append(row)


def _mean(values: pd.Series) -> tuple[float, float]:
    return float(values.mean()), float(1.96 * values.std() / np.sqrt(len(values)))


def _row(quantity, level, group, model, estimate, low, high, part, weighting) -> dict:
    return {
        "quantity": quantity,
        "level": level,
        "group": group,
        "model": model,
        "contrast": {"gap": "teacher - student", "gain": "student - base"}.get(quantity, ""),
        "scale": "score",
        "weighting": weighting,
        "subject": "model",
        "estimator": "paired",
        "population_items": "items_like_these",
        "population_tasks": "these_tasks",
        "population_students": "these_checkpoints",
        "estimate": estimate,
        "conf_low": low,
        "conf_high": high,
        "n_items": part["item"].nunique(),
        "n_clusters": part["cluster"].nunique(),
        "n_tasks": part["task"].nunique(),
        "method": "CR2, Bell-McCaffrey",
        "status": "ok",
        "note": "",
    }


def _models(roles: Roles) -> pd.DataFrame:
    rows = [
        {
            "model": name,
            "checkpoint": f"out/{name}",
            "n_params": 150_000 * (i + 1),
            "prompting": "plain",
            "weights_hash": f"sha256:{i:064x}",
            "adaptation": "full",
            "supervision": "answers",
            "n_examples": 3200,
        }
        for i, name in enumerate(roles.names)
    ]
    return validate(pd.DataFrame(rows), MODELS)


def _run(roles: Roles, outcomes: pd.DataFrame) -> dict:
    sentences = [
        f"{student}: closed 92 % [88, 95] of the knowledge gap and 41 % [33, 49] of the reasoning gap "
        f"({outcomes['task'].nunique()} tasks, {outcomes['item'].nunique():,} items, these checkpoints)."
        for student in roles.students
    ]
    return {
        "sentence": sentences,
        "next": "Next: capgap evaluate --student out/student --battery pocket --limit 600",
        "command": ["capgap", "evaluate", "--student", "out/student"],
        "versions": {"capgap": "0.1.0", "torch": "2.13.0", "lm-eval": "0.4.13"},
        "batteries": [{"name": "pocket", "version": 1, "hash": "b1946ac9"}],
        "seed": 0,
        "device": "cpu",
        "dtype": "float32",
        "seconds": 83.2,
        "state": "done",
    }
