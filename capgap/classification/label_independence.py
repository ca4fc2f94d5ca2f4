"""Independence of labels: none that rest on a model's answers are used to compare that model."""

import json
from collections.abc import Collection

import pandas as pd

from capgap.classification.evidence import AskedModel
from capgap.errors import TableError, UsageError


def refuse_circular(labels: pd.DataFrame, models: pd.DataFrame | None, compared: Collection[str] | None = None) -> None:
    """Refuse labels whose evidence comes from the models that are to be compared by them.

    Parameters
    ----------
    labels
        A `labels` table.
    models
        A `models` table with the compared ones, where there is one; without `compared` all of it is compared.
    compared
        Names of the compared models; those that `models` doesn't know are recognised by name alone.

    Raises
    ------
    UsageError
        One of them is a witness, by its name or by its weights; the message names it.
    """
    hash_of = dict(zip(models["model"], models["weights_hash"], strict=True)) if models is not None else {}
    names = set(hash_of) if compared is None else set(compared)
    name_by_hash = {h: name for name, h in hash_of.items() if name in names and isinstance(h, str) and h}
    for task, evidence in zip(labels["task"], labels["evidence"], strict=True):
        for asked_model in _asked_models(evidence):
            name = asked_model.name if asked_model.name in names else name_by_hash.get(asked_model.weights_hash or "")
            if name is not None:
                alias = "" if name == asked_model.name else f" (asked as {asked_model.name!r})"
                raise UsageError(
                    f"labels: those of task {task!r} rest on answers of {name!r}{alias}, which is one of the compared "
                    f"models; the comparison would test its own definition. Classify with other models, or by text "
                    f"alone: capgap classify without --model and --outcomes."
                )


def _asked_models(evidence: object) -> list[AskedModel]:
    """The models whose answers a cell of the column ``evidence`` rests on."""
    if not isinstance(evidence, str) or '"models"' not in evidence:
        return []
    try:
        models = json.loads(evidence).get("models", [])
        return [AskedModel(str(m["model"]), m.get("weights_hash")) for m in models]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise TableError(
            f"labels: evidence {evidence[:80]!r} is not of the form that capgap classify writes."
        ) from error
