from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from capgap.models import memory_check, parse_model


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Sixteen kilobytes of weights, beside GPUs of twenty."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(bytes(16_000))
    monkeypatch.setattr(memory_check, "locate", lambda spec: SimpleNamespace(path=tmp_path, adapter_of=None))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda n: SimpleNamespace(total_memory=20_000 - n))
    return str(tmp_path)


@pytest.mark.parametrize(
    ("options", "several"),
    [("", False), (",dtype=float32", True), (",dtype=float32,quantization=8bit", False), (",quantization=4bit", False)],
)
def test_weights_over_four_fifths_of_a_gpu_need_several(checkpoint: str, options: str, several: bool) -> None:
    assert memory_check.needs_several_gpus(parse_model(checkpoint + options)) is several


def test_one_gpu_and_a_server_are_never_several(checkpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not memory_check.needs_several_gpus(parse_model("local-completions:model=x,base_url=http://localhost:1"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert not memory_check.needs_several_gpus(parse_model(f"{checkpoint},dtype=float32"))
