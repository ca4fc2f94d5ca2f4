"""The doctor's tests of the trainer hold here, and find what is broken."""

from typing import Any

import pytest
import torch

from capgap.distillation.selftest import self_tests
from capgap.distillation.teacher import distributions
from capgap.distillation.training import divergences
from capgap.models import packed


def findings() -> dict[str, tuple[bool, str]]:
    return {name: (ok, found) for name, ok, found in self_tests("cpu")}


def test_all_of_them_hold_and_say_what_was_found() -> None:
    found = findings()
    assert all(ok for ok, _ in found.values()), found
    assert set(found) == {
        "label mask", "packed = padded", "step = its passes", "teacher = student", "cached = live", "tail of top-k",
    }  # fmt: skip
    assert "[<eos>]" in found["label mask"][1]


def test_an_attention_that_leaks_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = packed._packed_attention

    def leaking(*args: Any, row: packed.PackedRow, **options: Any) -> Any:
        return original(*args, row=packed.PackedRow((row.n_tokens,)), **options)

    monkeypatch.setitem(packed.AttentionInterface._global_mapping, packed._PACKED_ATTENTION_NAME, leaking)
    found = findings()
    assert not found["packed = padded"][0]
    assert not found["step = its passes"][0]


def test_a_divergence_that_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = divergences._token_divergence
    monkeypatch.setattr(divergences, "_token_divergence", lambda *args: (original(*args)[0] + 0.1, original(*args)[1]))
    assert not findings()["teacher = student"][0]


def test_a_cache_that_keeps_another_thing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = distributions._SignalCacheWriter._convert_to_cache_form
    generator = torch.Generator().manual_seed(0)

    def noisy(self: Any, text: Any, states: torch.Tensor) -> dict[str, torch.Tensor]:
        return original(self, text, states + 0.5 * torch.randn(states.shape, generator=generator))

    monkeypatch.setattr(distributions._SignalCacheWriter, "_convert_to_cache_form", noisy)
    assert not findings()["cached = live"][0]
