"""Strict settings for every test, and the small real parts that many of them use."""

import gc
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before anything imports huggingface_hub or torch: no hub, one thread, hashes kept out of the user's cache.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis  # noqa: F401  looks for referrers of what it registers, which it must do before objects are frozen
import pytest

ROOT = Path(__file__).resolve().parents[1]


_MARKED = {
    "slow": "minutes each: make test-slow",
    "browser": "chromium and chromedriver: make test-browser",
    "real": "CAPGAP_REAL_MODELS and CAPGAP_SHARED_DATA: make test-real",
    "gpu": "a CUDA device: make test-gpu",
    "oracle": "glmm and mixedlm: make test-oracles",
}
_not_run: dict[str, int] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip GPU tests where there is none, whoever asked for them."""
    asked_for = [item for item in items if item.get_closest_marker("gpu")]
    if asked_for and "gpu" in str(config.getoption("markexpr")):
        import torch

        if not torch.cuda.is_available():
            for item in asked_for:
                item.add_marker(pytest.mark.skip(reason="torch sees no CUDA device here"))


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count what markers left out."""
    for item in items:
        for name in _MARKED:
            if item.get_closest_marker(name):
                _not_run[name] = _not_run.get(name, 0) + 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process of xdist tells the main one."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["not_run"] = dict(_not_run)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a process of xdist left out; all of them collect the same tests."""
    _not_run.update(getattr(node, "workeroutput", {}).get("not_run", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was not run."""
    for name, need in _MARKED.items():
        if _not_run.get(name):
            terminalreporter.write_line(f"not run: {_not_run[name]} {name} tests ({need})")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    root = tmp_path_factory.getbasetemp()
    # The processes of one run share it: one of them reads lm-eval's 14,000 tasks, not each.
    shared = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(shared / "cache"))
        patched.delenv("CAPGAP_DATA", raising=False)
        yield


_n_frozen = 0
"""Modules that were loaded when objects were last frozen."""


@pytest.fixture(autouse=True)
def _modules_are_no_garbage() -> None:
    """A collection after each model walks through all objects; those of imported modules are left out."""
    global _n_frozen
    if len(sys.modules) > _n_frozen + 100:
        gc.freeze()
        _n_frozen = len(sys.modules)


WORDS = [
    *("<pad>", "<eos>", "<unk>", "Q", "A", ":", "?", "the", "capital", "of", "is", "and", "plus"),
    *("red", "blue", "green", "one", "two", "three", "four", "five", "six", "seven"),
]


def make_checkpoint(folder: Path, *, seed: int = 0, width: int = 32, layers: int = 2, chat: bool = False) -> Path:
    """A randomly initialised Llama with a word-level tokenizer, saved as anybody would save one."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {word: n for n, word in enumerate(WORDS)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )
    if chat:
        tokenizer.chat_template = (
            "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} {% endfor %}"
            "{% if add_generation_prompt %}A : {% endif %}"
        )
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
        initializer_range=0.5,  # sharper than usual, so that answers differ between items
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three different tiny checkpoints of one architecture: teacher, student, base."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: make_checkpoint(root / name, seed=n) for n, name in enumerate(("teacher", "student", "base"))}


def tiny_rows(n: int = 24) -> list[dict[str, Any]]:
    """Items in the tiny checkpoints' words."""
    numbers = ["one", "two", "three", "four", "five", "six", "seven"]
    colours = ["red", "blue", "green"]
    rows = []
    for i in range(n):
        a, b = numbers[i % 5], numbers[(i * 3 + 1) % 6]
        rows.append(
            {
                "q": f"{a} plus {b} and {colours[i % 3]} of {numbers[(i // 3) % 7]}",
                "options": colours,
                "answer": colours[(i * 7) % 3],
                "depth": 1 + i % 3,
            }
        )
    return rows


TINY_BATTERY = """
name: tiny
version: 1
description: Twenty-four items in the words of the tiny checkpoints.
defaults: {num_fewshot: SHOTS, seed: 3}
tasks:
  - name: colours_choose
    data: {file: items.jsonl, fewshot: shots.jsonl}
    capability: knowledge
    domain: colours
    format: choose
    prompt: "Q : {{q}} ? A :"
    choices: "{{options}}"
    target: "{{answer}}"
    covariates: {depth: "{{depth}}"}
  - name: colours_generate
    data: {file: items.jsonl, fewshot: shots.jsonl}
    capability: reasoning
    domain: colours
    format: generate
    score: contains
    prompt: "Q : {{q}} ? A :"
    target: "{{answer}}"
    guess: {value: 0.33, because: one of three colours}
    stop: ["Q"]
    max_tokens: 12
    covariates: {depth: "{{depth}}"}
"""


def make_battery(folder: Path, *, shots: int = 0, n: int = 24) -> Path:
    """The tiny battery with its data, as a YAML file."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = tiny_rows(n + 6)
    for name, part in (("items", rows[:n]), ("shots", rows[n:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    path = folder / "tiny.yaml"
    path.write_text(TINY_BATTERY.replace("SHOTS", str(shots)))
    return path


@pytest.fixture
def tiny_battery(tmp_path: Path) -> Path:
    """The tiny battery without solved examples."""
    return make_battery(tmp_path / "battery")
