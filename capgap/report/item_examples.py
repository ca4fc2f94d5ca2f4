"""Example items per task where the teacher is right and a student wrong, drawn with a seed."""

import zlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from capgap.report import text
from capgap.report.tables import CAPABILITY_ORDER, task_names
from capgap.report.text import TextExcerpt
from capgap.schema import CELL_KEY, Roles

_OutcomeRow = Mapping[Hashable, Any]

_RIGHT_SCORE = 0.5
"""A score from here on counts as right where scores are graded."""


@dataclass(frozen=True)
class ExampleAnswer:
    """The answer of one model to one item."""

    role: str
    model: str
    score: float | None
    status: str
    answer: TextExcerpt | None
    """The prediction, or the response where nothing was parsed; None where texts are withheld."""
    response: TextExcerpt | None
    """The whole response, where it says more than the answer."""
    margin: float | None
    """Best choice over the next, nats."""
    margin_target: float | None
    """Target over the best wrong choice, nats."""
    digest: str
    """Of the response (or prediction), for those who hold the texts."""


@dataclass(frozen=True)
class ItemExample:
    """One item with the answer of everyone that has a role."""

    item: str
    variant: str
    prompt: TextExcerpt | None
    target: TextExcerpt | None
    digest: str
    answers: tuple[ExampleAnswer, ...]


@dataclass(frozen=True)
class TaskExamples:
    """The examples of one task."""

    task: str
    capability: str
    n_candidates: int
    """Items where the teacher is right and a student wrong."""
    n_items: int
    """Items that teacher and students answered."""
    examples: tuple[ItemExample, ...]


def examples(
    outcomes: pd.DataFrame,
    roles: Roles,
    capabilities: dict[str, str],
    *,
    items: pd.DataFrame | None,
    seed: int,
    show: bool,
    n_shown: int = 3,
) -> list[TaskExamples]:
    """For every task, up to `n_shown` items that the teacher has right and at least one student wrong.

    Parameters
    ----------
    outcomes
        An outcomes table; primary rows count.
    roles
        Who is who; without a teacher there are no examples.
    capabilities
        Task → capability.
    items
        The items table, for prompts; without it targets come from the outcomes and prompts are missing.
    seed
        Of the choice. A task's choice depends on its name and its items alone.
    show
        Whether prompts, targets and answers may be shown; else only ids, scores and hashes.
    n_shown
        At most this many.
    """
    if roles.teacher is None:
        return []
    rows = outcomes[outcomes["primary"].fillna(False).astype(bool) & outcomes["model"].isin(roles.names)]
    rows = rows.assign(task_shown=task_names(outcomes).loc[rows.index])
    prompts = {} if items is None else _index_item_texts(items)
    entries = []
    for task, task_rows in rows.groupby("task_shown", sort=False):
        scores = task_rows.pivot(index=list(CELL_KEY), columns="model", values="score").sort_index()  # cells × models
        students = [model for model in roles.students if model in scores]
        if roles.teacher not in scores or not students:
            continue
        scores = scores.dropna(subset=[roles.teacher, *students])
        is_candidate = (scores[roles.teacher] >= _RIGHT_SCORE) & (scores[students] < _RIGHT_SCORE).any(axis="columns")
        keys = scores.index[is_candidate.to_numpy()].to_list()
        # A stream of its own for each task: adding a task changes no other task's examples.
        rng = np.random.default_rng([seed, zlib.crc32(str(task).encode("utf-8", "surrogatepass"))])
        chosen = sorted(rng.choice(len(keys), size=min(n_shown, len(keys)), replace=False).tolist())
        rows_by_cell = _rows_by_cell(task_rows, [keys[i] for i in chosen])
        task_examples = tuple(_make_example(keys[i], rows_by_cell[keys[i]], roles, prompts, show=show) for i in chosen)
        capability = capabilities.get(str(task), "unlabelled")
        entries.append(TaskExamples(str(task), capability, len(keys), len(scores), task_examples))
    return sorted(entries, key=lambda entry: CAPABILITY_ORDER.index(entry.capability))


def _index_item_texts(items: pd.DataFrame) -> dict[tuple[str, ...], dict[Hashable, object]]:
    keys = zip(items["battery"], items["task"], items["item"], items["variant"], strict=True)
    return dict(zip(keys, items[["prompt", "target"]].to_dict("records"), strict=True))


def _rows_by_cell(rows: pd.DataFrame, keys: Sequence[tuple[Any, ...]]) -> dict[tuple[Any, ...], list[_OutcomeRow]]:
    """The rows of a few cells, without an index over all."""
    rows_by_cell: dict[tuple[Any, ...], list[_OutcomeRow]] = {key: [] for key in keys}
    for row in rows[rows["item"].isin([key[CELL_KEY.index("item")] for key in keys])].to_dict("records"):
        key = tuple(row[name] for name in CELL_KEY)
        if key in rows_by_cell:
            rows_by_cell[key].append(row)
    return rows_by_cell


def _make_example(
    key: Sequence[object],
    rows: Sequence[_OutcomeRow],
    roles: Roles,
    prompts: dict[tuple[str, ...], dict[Hashable, object]],
    *,
    show: bool,
) -> ItemExample:
    item = prompts.get(tuple(str(key_value) for key_value in key[:4]), {})
    prompt = item.get("prompt")
    target = next((t for t in [item.get("target"), *(row["target"] for row in rows)] if isinstance(t, str)), None)
    row_of = {row["model"]: row for row in rows}
    cast = _role_by_model(roles).items()
    answers = tuple(_answer(role, model, row_of[model], show=show) for model, role in cast if model in row_of)
    return ItemExample(
        item=text.shorten(key[2], 80),
        variant=text.shorten(key[3], 40),
        prompt=text.excerpt(prompt) if show else None,
        target=text.excerpt(target, n_head_characters=200, total=600) if show else None,
        digest=text.digest(prompt if isinstance(prompt, str) else target),
        answers=answers,
    )


def _role_by_model(roles: Roles) -> dict[str, str]:
    """Everyone with a role, the teacher first, each with the first of its roles."""
    role_by_model = {roles.teacher: "teacher"} if roles.teacher else {}
    for student in roles.students:
        role_by_model.setdefault(student, "student")
        for role, model_by_student in (("base", roles.base), ("control", roles.control)):
            if student in model_by_student:
                role_by_model.setdefault(model_by_student[student], role)
    return role_by_model


def _answer(role: str, model: str, row: _OutcomeRow, *, show: bool) -> ExampleAnswer:
    prediction, response = (row[name] if isinstance(row[name], str) else None for name in ("prediction", "response"))
    response_differs = prediction is not None and response is not None and response.strip() != prediction.strip()
    numbers = {name: None if pd.isna(row[name]) else float(row[name]) for name in ("score", "margin", "margin_target")}
    return ExampleAnswer(
        role=role,
        model=model,
        status=str(row["status"]),
        answer=text.excerpt(response if prediction is None else prediction, n_head_characters=240, total=800)
        if show
        else None,
        response=text.excerpt(response, n_head_characters=0, total=1_200) if show and response_differs else None,
        digest=text.digest(prediction if response is None else response),
        **numbers,
    )
