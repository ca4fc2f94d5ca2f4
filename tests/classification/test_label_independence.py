import pandas as pd
import pytest

from capgap import schema
from capgap.classification import ItemText, UnlabelledItem, behaviour_evidence, classify_items, refuse_circular
from capgap.errors import TableError, UsageError
from tests.classification.worlds import models, outcomes

STEPS_HELP = {("m", "direct"): 0.4, ("m", "cot"): 0.9}


def labelled() -> pd.DataFrame:
    evidence = behaviour_evidence(outcomes(STEPS_HELP), models(m=10))
    return classify_items([UnlabelledItem("t", "1", ItemText("?"))], answer_evidence=evidence, text=lambda q: []).labels


def test_labels_refuse_to_compare_their_own_witnesses() -> None:
    labels = labelled()
    with pytest.raises(UsageError, match="rest on answers of 'm'"):
        refuse_circular(labels, models(m=10))
    renamed = schema.df_from_rows([{"model": "student", "weights_hash": "hash of m"}], schema.MODELS)
    with pytest.raises(UsageError, match=r"'student' \(asked as 'm'\)"):
        refuse_circular(labels, renamed)
    for unknown in (schema.empty(schema.MODELS), None):
        with pytest.raises(UsageError, match="'m'"):
            refuse_circular(labels, unknown, compared=["m"])
    refuse_circular(labels, models(other=10))
    refuse_circular(labels, models(m=10, other=10), compared=["other"])


def test_labels_without_witnesses_may_be_used_for_anybody() -> None:
    labels = classify_items([UnlabelledItem("t", "1", ItemText("?"), "reasoning")], text=lambda q: []).labels
    refuse_circular(labels, models(m=10))
    foreign = labels.assign(evidence=["a plain sentence"])
    refuse_circular(foreign, models(m=10))


@pytest.mark.parametrize("evidence", ['{"models": 3}', '{"models": [1]}', '{"models"', '[{"models": []}]'])
def test_evidence_of_a_broken_form_is_named(evidence: str) -> None:
    with pytest.raises(TableError, match="not of the form"):
        refuse_circular(labelled().assign(evidence=[evidence]), models(m=10))
