"""The models of the microworld: their recipes, and the training that makes each of them from a seed.

A base reads statements only (`capgap.microworld.PretrainingText`). A taught model reads statements of the whole world,
questions with steps and answer, and questions with the answer alone; the ``A`` that opens the short form is given and
never learnt, so that a taught model generates with its steps and chooses without. No model reads a question of the
evaluation.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from capgap.distillation.students.loading import whole_folder
from capgap.errors import ModelError, StoreError, suggestion
from capgap.microworld import Q_FAMILIES, PretrainingText, World, WorldQuestion, evaluation, make_world, write_tokenizer
from capgap.microworld.vocabulary import ANSWER, EOS_TOKEN, PAD_TOKEN, SPECIAL_TOKENS
from capgap.microworld.world import STRATA, corrupt_world_facts
from capgap.microworld.world_tokenizer import MAX_SEQUENCE_TOKENS

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

__all__ = ["MODEL_RECIPES", "ModelRecipe", "build_checkpoint", "build_base", "train"]

NO_LOSS = -100
"""The label of a token that the loss leaves out."""

LabelledBatches = Iterator[tuple["torch.Tensor", "torch.Tensor"]]
"""Token ids and labels, both shape (rows, length)."""
LabelledTokens = tuple[list[int], list[int]]
"""Tokens, and the label of each."""


@dataclass(frozen=True)
class ModelRecipe:
    """All that makes a model, its seeds aside."""

    kind: Literal["base", "taught"]
    """What it reads: statements; or statements and questions."""
    layers: int
    """Decoder layers."""
    width: int
    """Hidden size; the feed-forward part is four times as wide."""
    heads: int
    """Attention heads."""
    steps: int
    """Optimizer steps."""
    lr: float
    """Peak learning rate: it rises over a twentieth of the steps and falls along a half cosine."""
    families: tuple[str, ...] = tuple(Q_FAMILIES)
    """The families that a taught model is asked."""
    mistaken: float = 0.0
    """Share of the facts that it is told wrong, always in the same way."""
    batch: int = 64
    """Rows of text, or questions and rows of text, in one step."""


_KNOWLEDGE_FAMILIES, _REASONING_FAMILIES = ("facts", "two_hops"), ("chains", "booleans", "cups", "lists", "hops")

MODEL_RECIPES: dict[str, ModelRecipe] = {
    "teacher": ModelRecipe("taught", 3, 96, 4, steps=3000, lr=3e-3),
    "specialist_knowledge": ModelRecipe("taught", 2, 64, 4, steps=1000, lr=5e-3, families=_KNOWLEDGE_FAMILIES),
    "specialist_reasoning": ModelRecipe("taught", 2, 64, 4, steps=2400, lr=5e-3, families=_REASONING_FAMILIES),
    "generalist": ModelRecipe("taught", 2, 64, 4, steps=3000, lr=5e-3, mistaken=0.2),
    "small": ModelRecipe("base", 2, 48, 3, steps=4000, lr=6e-3),
    "medium": ModelRecipe("base", 2, 64, 4, steps=1900, lr=5e-3),
    "large": ModelRecipe("base", 3, 80, 5, steps=2200, lr=4e-3),
}
"""The shipped models."""

_ROW_MIX_SHARES = {"steps": 0.50, "answer": 0.33, "text": 0.17}
"""Shares of the rows that a taught model reads."""


def build_checkpoint(
    name: str,
    out: Path,
    *,
    seed: int = 0,
    recipe: ModelRecipe | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> Path:
    """Train a model of the world and save it as an ordinary checkpoint; one that is finished is left as it is.

    Parameters
    ----------
    name
        A key of `MODEL_RECIPES`; with a `recipe` of one's own, any name for a folder.
    out
        Folder of the checkpoints; the model goes to ``out/name``, which appears only when it is whole.
    seed
        Seed of the first weights and of everything that is read. The world is always that of seed 0.
    recipe
        Instead of the shipped one.
    on_step
        Told the step and its loss, nats per token.

    Returns
    -------
    Path
        The checkpoint: ``config.json`` (which records recipe and seeds under ``capgap``), ``model.safetensors``,
        ``generation_config.json``, ``tokenizer.json``, ``tokenizer_config.json``.

    Raises
    ------
    ModelError
        No shipped model has this name, or the folder holds a model of another recipe or seed.
    StoreError
        The folder cannot be written.
    """
    if recipe is None and name not in MODEL_RECIPES:
        raise ModelError(f"microworld: no model is called {name!r}.{suggestion(name, MODEL_RECIPES)}")
    recipe = recipe or MODEL_RECIPES[name]
    world = make_world()
    origin = {"recipe": asdict(recipe) | {"families": list(recipe.families)}, "seed": seed, "world_seed": world.seed}
    target = out / name
    if (target / "config.json").is_file():
        _same_origin(target, origin)
        return target
    model = _make_untrained_model(recipe, world, seed)
    batches = _generate_batches(recipe, world, np.random.default_rng([seed, 29]))
    train(model, batches, steps=recipe.steps, lr=recipe.lr, on_step=on_step)
    _save_checkpoint(model, world, target, origin)
    return target


def build_base(
    *, layers: int, width: int, heads: int | None = None, seed: int = 0, out: Path, steps: int = 1500
) -> Path:
    """A base student of another size or seed: the recipe of the shipped ones, in a folder named after it.

    Parameters
    ----------
    layers, width, heads
        Its shape; one head for each 16 of width unless told.
    seed
        Seed of its first weights and of its text.
    out
        Folder of such bases; one that is finished is not built again.
    steps
        Optimizer steps.

    Returns
    -------
    Path
        ``out/base-LAYERSxWIDTH-seedSEED``.

    Raises
    ------
    ModelError
        The width cannot be shared among the heads, each an even number of dimensions wide.
    """
    heads = heads or max(1, width // 16)
    if width % heads or width // heads % 2:
        raise ModelError(
            f"microworld: width {width} does not give {heads} heads an even number of dimensions each. "
            f"Choose a width that is a multiple of {2 * heads}."
        )
    lr = 5e-3 * (64 / width) ** 0.5
    recipe = ModelRecipe("base", layers, width, heads, steps=steps, lr=round(lr, 5))
    return build_checkpoint(f"base-{layers}x{width}-seed{seed}", out, seed=seed, recipe=recipe)


def train(
    model: "LlamaForCausalLM",
    batches: LabelledBatches,
    *,
    steps: int,
    lr: float,
    on_step: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train every weight with AdamW on the mean cross-entropy of the labelled tokens.

    Parameters
    ----------
    model
        Changed in place.
    batches
        Token ids and labels, both shape (rows, length); `NO_LOSS` labels carry no loss.
    steps
        Optimizer steps.
    lr
        Peak learning rate.
    on_step
        Told the step and its loss, nats per token.

    Returns
    -------
    list[float]
        The loss of each step.
    """
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _lr_factor(step, steps))
    model.train()
    losses: list[float] = []
    for step in range(steps):
        ids, labels = next(batches)
        # rows are padded on the right, where causal attention never looks: no mask is needed
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if on_step is not None:
            on_step(step, losses[-1])
    return losses


def _lr_factor(step: int, steps: int) -> float:
    """The learning rate of a step as a share of the peak: a short warm-up, then a half cosine."""
    return min((step + 1) / max(1.0, steps / 20), 0.5 * (1 + float(np.cos(np.pi * step / steps))))


def _make_untrained_model(recipe: ModelRecipe, world: World, seed: int) -> "LlamaForCausalLM":
    """An untrained model of the recipe's shape; the global random state is left as it was."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(world.vocabulary),
        hidden_size=recipe.width,
        intermediate_size=4 * recipe.width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=MAX_SEQUENCE_TOKENS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=SPECIAL_TOKENS.index(EOS_TOKEN),
        pad_token_id=SPECIAL_TOKENS.index(PAD_TOKEN),
        # the defaults are for thousands of dimensions and positions: here they would start too small, and positions
        # a few words apart would look alike, so that copying a word is hardly learnt
        initializer_range=recipe.width**-0.5,
        rope_parameters={"rope_type": "default", "rope_theta": 100.0},
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).to(torch.float32)


def _generate_batches(recipe: ModelRecipe, world: World, rng: np.random.Generator) -> LabelledBatches:
    """What a model of the recipe reads, without end."""
    ids = {word: i for i, word in enumerate(world.vocabulary)}
    if recipe.kind == "base":
        text = PretrainingText(world)
        while True:
            yield _rows_to_tensors(_text_rows(text, recipe.batch, ids, rng))
    held_out_prompts = {question.text for questions in evaluation(world).values() for question in questions}
    if recipe.mistaken:
        world = corrupt_world_facts(world, recipe.mistaken, rng)
    text = PretrainingText(world, STRATA)
    while True:
        counts = dict(zip(_ROW_MIX_SHARES, rng.multinomial(recipe.batch, list(_ROW_MIX_SHARES.values())), strict=True))
        sequences = [
            _question_and_reply(_open_question(world, recipe.families, held_out_prompts, rng), form, ids)
            for form in ("steps", "answer")
            for _ in range(counts[form])
        ]
        rows = _pack_sequences([sequences[i] for i in rng.permutation(len(sequences))])
        yield _rows_to_tensors(rows + _text_rows(text, counts["text"], ids, rng))


def _text_rows(text: PretrainingText, n: int, ids: dict[str, int], rng: np.random.Generator) -> list[LabelledTokens]:
    """`n` rows of running text, cut where they are full; every token is learnt."""
    length = 48
    stream: list[int] = []
    while len(stream) < n * length:
        stream += [ids[word] for passage in text.draw_passages(n * length // 6, rng) for word in passage.split()]
    rows = (stream[i * length : (i + 1) * length] for i in range(n))
    return [(row, row) for row in rows]


def _open_question(
    world: World, family_names: tuple[str, ...], held_out_prompts: set[str], rng: np.random.Generator
) -> WorldQuestion:
    """A random question of the families, of any depth, that the evaluation does not ask."""
    while True:
        question_family = Q_FAMILIES[family_names[rng.integers(len(family_names))]]
        question = question_family.draw(world, int(rng.choice(question_family.depths)), rng)
        if question.text not in held_out_prompts:
            return question


def _question_and_reply(question: WorldQuestion, form: str, ids: dict[str, int]) -> LabelledTokens:
    """Tokens and labels of a question with its steps, or with its answer alone."""
    prompt = question.text if form == "steps" else f"{question.text} {ANSWER}"
    reply = question.completion if form == "steps" else question.answer
    prompt_ids = [ids[word] for word in prompt.split()]
    reply_ids = [ids[word] for word in f"{reply} {EOS_TOKEN}".split()]
    return prompt_ids + reply_ids, [NO_LOSS] * len(prompt_ids) + reply_ids


def _pack_sequences(sequences: list[LabelledTokens]) -> list[LabelledTokens]:
    """The sequences one after the other in as few rows as their order allows, none cut.

    A later one sees those before it in its row; it never needs them, and learns to leave them alone. Without this,
    half of a batch would be padding.
    """
    rows: list[LabelledTokens] = []
    for tokens, labels in sequences:
        if rows and len(rows[-1][0]) + len(tokens) <= MAX_SEQUENCE_TOKENS:
            rows[-1] = (rows[-1][0] + tokens, rows[-1][1] + labels)
        else:
            rows.append((tokens, labels))
    return rows


def _rows_to_tensors(rows: list[LabelledTokens]) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Ids and labels of the rows, padded on the right to the longest."""
    import torch

    length = max(len(tokens) for tokens, _ in rows)
    ids = torch.full((len(rows), length), SPECIAL_TOKENS.index(PAD_TOKEN))
    labels = torch.full((len(rows), length), NO_LOSS)
    for i, (tokens, row_labels) in enumerate(rows):
        ids[i, : len(tokens)] = torch.tensor(tokens)
        labels[i, : len(row_labels)] = torch.tensor(row_labels)
    return ids, labels


def _same_origin(folder: Path, origin: dict[str, Any]) -> None:
    """Refuse a finished model that is not the one that was asked for."""
    saved_model_origin = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("capgap")
    if saved_model_origin != json.loads(json.dumps(origin)):
        raise ModelError(f"{folder}: holds a model of another recipe or seed. Delete it, or choose another folder.")


def _save_checkpoint(model: "LlamaForCausalLM", world: World, target: Path, origin: dict[str, Any]) -> None:
    """Save an ordinary checkpoint with its origin in ``config.json``."""
    try:
        with whole_folder(target) as partial_folder:
            model.config.capgap = origin
            model.save_pretrained(partial_folder)
            write_tokenizer(world, partial_folder)
    except OSError as error:
        raise StoreError(f"{target}: cannot be written: {error.strerror or error}.") from error
