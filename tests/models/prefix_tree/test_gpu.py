"""On a GPU: the same numbers as lm-eval's `hf` there, in full and half precision, and outcomes whatever the workers."""

from pathlib import Path
from typing import Any

import pytest

from capgap.models import Ledger, load_model, parse_model, respond
from tests.models.prefix_tree.models import TREE, make_model
from tests.models.prefix_tree.test_generation import generate, prompts
from tests.models.prefix_tree.test_same_as_plain import requests

pytestmark = pytest.mark.gpu


def on_gpu(checkpoint: Path, dtype: str) -> Any:
    return load_model(parse_model(f"m={checkpoint}"), device="cuda", dtype=dtype)


@pytest.mark.parametrize("kind", TREE)
@pytest.mark.filterwarnings("ignore")
def test_log_likelihoods_on_a_gpu_are_lm_evals(kind: str, tmp_path: Path) -> None:
    from lm_eval.models.huggingface import HFLM

    checkpoint = make_model(tmp_path / "model", kind)
    asked = [instance for instance in requests(3) if instance.request_type == "loglikelihood"]
    lm = HFLM(pretrained=str(checkpoint), device="cuda", dtype="float32", batch_size=4)
    model = on_gpu(checkpoint, "float32")
    model.tree.row_tokens = 48
    with Ledger(tmp_path / "l.sqlite") as ledger:
        got = [own[0].value for own in respond(model, asked, ledger)]
    assert model.tree is not None, model.notes
    for one, other in zip(got, lm.loglikelihood(asked, disable_tqdm=True), strict=True):
        assert one[0] == pytest.approx(other[0], abs=1e-3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "mistral"])
@pytest.mark.filterwarnings("ignore")
def test_half_precision_on_a_gpu_passes_its_proof(kind: str, dtype: str, tmp_path: Path) -> None:
    model = on_gpu(make_model(tmp_path / "model", kind, initializer_range=0.05), dtype)
    with Ledger(tmp_path / "l.sqlite") as ledger:
        respond(model, requests(3), ledger)
        respond(model, [generate(text, until=()) for text in prompts(8, shots=3)], ledger)
    assert model.tree is not None, model.notes


@pytest.mark.filterwarnings("ignore")
def test_texts_on_a_gpu_are_those_of_the_cpu(tmp_path: Path) -> None:
    checkpoint = make_model(tmp_path / "model", "llama", seed=3)
    asked = [generate(text) for text in prompts(12, shots=3)]
    texts = []
    for device in ("cpu", "cuda"):
        model = load_model(parse_model(f"m={checkpoint}"), device=device, dtype="float32")
        with Ledger(tmp_path / f"{device}.sqlite") as ledger:
            texts.append([own[0].value for own in respond(model, asked, ledger)])
    assert texts[0] == texts[1]


@pytest.mark.filterwarnings("ignore")
def test_a_gpu_whose_memory_ends_halves_the_rows(tmp_path: Path) -> None:
    import torch

    checkpoint = make_model(tmp_path / "model", "llama", max_position_embeddings=8192)
    model = on_gpu(checkpoint, "float32")
    model.tree.row_tokens = 4096
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + 120e6) / total))
    try:
        with Ledger(tmp_path / "l.sqlite") as ledger:
            respond(model, requests(60), ledger)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert model.tree is not None, model.notes
    assert model.tree.row_tokens < 4096
