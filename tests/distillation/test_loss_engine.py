"""Soft prompts and adapters in packed passes against plain peft, one example at a time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from capgap.distillation import DistillConfig, distill
from capgap.distillation.data.encoding import NO_LOSS, EncodedExample
from capgap.distillation.students.student import apply_adaptation
from capgap.distillation.training.batch_source import StoredBatches
from capgap.distillation.training.divergences import Objective
from capgap.distillation.training.loss_engine import LossEngine
from tests.distillation.conftest import make_model, make_tokenizer

Make = Callable[..., DistillConfig]
EXAMPLES = (
    EncodedExample((1, 5, 6, 7, 8, 2), (NO_LOSS, NO_LOSS, NO_LOSS, 7, 8, 2)),
    EncodedExample((1, 9, 10, 2), (NO_LOSS, NO_LOSS, 10, 2)),
    EncodedExample((1, 4, 5, 6, 4, 5, 6, 7, 2), (NO_LOSS, NO_LOSS, 5, NO_LOSS, 4, 5, NO_LOSS, 7, 2)),
)


@pytest.mark.parametrize("adaptation", ["soft_prompt", "lora"])
def test_packed_gradients_of_an_adapter_are_those_of_plain_peft(make_config: Make, adaptation: str) -> None:
    config = make_config(adaptation=adaptation, soft_prompt={"tokens": 3}, lora={"rank": 2})
    model = apply_adaptation(make_model(layers=2), config, make_tokenizer())
    for parameter in model.parameters():  # peft begins with zeros, whose gradients would say little
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(1))
    total = torch.zeros(())
    for example in EXAMPLES:
        # peft lengthens the labels by the virtual tokens itself, and averages over what has one
        told = model(input_ids=torch.tensor([example.input_ids]), labels=torch.tensor([example.labels]))
        total = total + told.loss * example.n_loss_tokens
    total.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    engine = LossEngine(model, Objective(cross_entropy=1.0))
    (batch,) = StoredBatches(("a", "b", "c"), EXAMPLES).micro_batches(range(3), 1000, engine.n_virtual)
    with engine.in_use():
        loss = engine.loss(batch).total
        loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == pytest.approx(float(total.detach()), rel=1e-5)
    found = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-5)


def test_a_saved_soft_prompt_is_pefts_and_is_evaluated(make_config: Make, tmp_path: Path, schooled: Path) -> None:
    import peft
    from transformers import AutoModelForCausalLM

    from capgap.models import Ledger, load_model, parse_model, respond

    config = make_config(
        student=str(schooled), adaptation="soft_prompt", soft_prompt={"tokens": 4, "text": "the answer is"},
        supervision="gold_traces", training={"max_steps": 10, "batch_size": 8, "lr": 0.05},
    )  # fmt: skip
    out = distill(config, tmp_path / "out", device="cpu")
    plain = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(schooled), out).eval()
    assert plain.active_peft_config.num_virtual_tokens == 4
    ids = torch.tensor([[1, 17, 5, 14, 6, 18, 4]])
    with torch.no_grad():
        logits = plain(ids).logits[0, 4:]
    engine = LossEngine(plain, Objective(cross_entropy=1.0))
    encoded = EncodedExample(tuple(ids[0].tolist()), (NO_LOSS, *ids[0, 1:].tolist()))
    (batch,) = StoredBatches(("a",), (encoded,)).micro_batches([0], 99, 4)
    with torch.no_grad(), engine.in_use():
        torch.testing.assert_close(engine.head.logits(engine.hidden(batch)), logits[:-1], rtol=1e-4, atol=1e-4)
    loaded = load_model(parse_model(str(out)), device="cpu")
    assert loaded.facts["adaptation"] == "soft_prompt"
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ((answer,),) = respond(loaded, [_request("Q 1 + 2 ?", " 3")], ledger)
    context = loaded.lm.tok_encode("Q 1 + 2 ?")
    whole = torch.tensor([loaded.lm.tok_encode("Q 1 + 2 ? 3")])
    with torch.no_grad():
        expected = torch.log_softmax(plain(whole).logits[0, 4:], -1)[len(context) - 1, whole[0, -1]]
    assert answer.value[0] == pytest.approx(float(expected), abs=1e-4)


def _request(context: str, continuation: str) -> Any:
    from lm_eval.api.instance import Instance

    return Instance("loglikelihood", {}, (context, continuation), 0, ("sums", 0, 1))
