"""A generation keeps the harness's score; how it ended and whether it was read stand beside."""

from types import SimpleNamespace
from typing import Any

import pytest

from capgap.battery import Item
from capgap.evaluation.scoring import _generation_columns
from capgap.models import ModelResponse

ITEM = Item(task="t", item="0", variant="default", prompt="Q", choices=None, targets=("7",))
TASK: Any = SimpleNamespace(score="numeric", extract=None)


@pytest.mark.parametrize("stop_reason", ["end", "limit", "stop_string", None])
@pytest.mark.parametrize(
    ("text", "value", "status"),
    [("it is 7", 1.0, "scored"), ("it is 8", 0.0, "scored"), ("no idea", 0.0, "unparsed"), ("", 0.25, "unparsed")],
)
def test_the_score_is_the_harnesss_however_an_answer_ended(
    text: str, value: float, status: str, stop_reason: str | None
) -> None:
    response = ModelResponse(text, 3, stop_reason, n_prompt_cut=2)
    row = _generation_columns(TASK, ITEM, text, response, value)
    assert (row["value"], row["score"], row["status"]) == (value, value, status)
    assert (row["stop_reason"], row["n_prompt_cut"], row["n_tokens"]) == (stop_reason, 2, 3)
