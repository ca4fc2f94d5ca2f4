"""Construction of students that no checkpoint holds: of the microworld, pruned by block influence, or random.

Each is made once, beside the students that start from it, in a folder whose name tells what it was made of, and is an
ordinary checkpoint from then on.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from capgap.distillation.config import DistillConfig
from capgap.distillation.config_keys import BuiltStudent, PrunedStudent, ScratchStudent
from capgap.distillation.data.selection import TrainingExample
from capgap.distillation.students.loading import fingerprint, loaded, model_tokenizer, whole_folder
from capgap.distillation.students.microworld_models import build_base
from capgap.errors import DistillError, ModelError
from capgap.models import parse_model
from capgap.models.checkpoint import locate

__all__ = ["base_seed", "calibration_texts", "construct_student"]

BASES_FOLDER = "bases"
"""Folder of the students that were made here, beside the output directories that use them."""
_N_CALIBRATION_TEXTS = 64  # texts
_CALIBRATION_TOKENS = 256  # of each


def base_seed(student: Any) -> int | None:
    """The seed of a student's first weights, where it was made here."""
    if isinstance(student, BuiltStudent):
        return student.microworld.seed
    return student.seed if isinstance(student, ScratchStudent) else None


def calibration_texts(examples: Iterable[TrainingExample]) -> list[str]:
    """Texts on which layers are measured: the same for the same data, whatever a student is to learn of them."""

    def text(example: TrainingExample) -> str:
        if example.messages is not None:
            return "\n".join(turn["content"] for turn in example.messages)
        return f"{example.prompt}{example.task_format.delimiter}{example.rationale or example.target}"

    ordered = sorted({text(example) for example in examples}, key=lambda one: hashlib.sha256(one.encode()).digest())
    return ordered[:_N_CALIBRATION_TEXTS]


def construct_student(config: DistillConfig, out: Path, *, calibration: Sequence[str] = ()) -> str:
    """The model word of a student before distillation.

    Raises
    ------
    ModelError
        Its shape is impossible, or what it is made from cannot be loaded.
    DistillError
        It is to have more layers than it could keep.
    """
    spec, bases = config.student, out.parent / BASES_FOLDER
    if isinstance(spec, str):
        return spec
    if isinstance(spec, PrunedStudent):
        return str(_prune_student(config.name, spec, calibration, bases))
    if isinstance(spec, ScratchStudent):
        return str(_from_scratch(config.name, spec, bases))
    shape = spec.microworld
    return str(build_base(layers=shape.layers, width=shape.width, heads=shape.heads, seed=shape.seed, out=bases))


def _from_scratch(name: str, student: ScratchStudent, bases: Path) -> Path:
    """The folder of a model with random weights of the seed."""
    from transformers import AutoConfig, AutoModelForCausalLM, set_seed

    tokenizer = model_tokenizer(spec := parse_model(student.tokenizer), locate(spec))
    try:
        if isinstance(student.config, dict):
            shape = AutoConfig.for_model(**student.config)
        else:
            file = Path(student.config)
            shape = AutoConfig.from_pretrained(file if file.is_file() else locate(parse_model(student.config)).path)
        if shape.vocab_size < len(tokenizer):
            raise ModelError(
                f"{name}: student.config has vocab_size {shape.vocab_size}, and the tokenizer has {len(tokenizer)} "
                "tokens. Make it so large."
            )
        for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
            setattr(shape, key, getattr(tokenizer, key))
        folder = bases / f"scratch-{_short_hash(shape.to_json_string(), student.tokenizer)}-{student.seed}"
        if not (folder / "config.json").is_file():
            set_seed(student.seed)
            model = AutoModelForCausalLM.from_config(shape).float()
            with whole_folder(folder) as partial_folder:
                model.save_pretrained(partial_folder)
                tokenizer.save_pretrained(partial_folder)
    except ModelError:
        raise
    except Exception as error:  # what transformers and torch raise over shapes that cannot be is of many kinds
        message = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{name}: student.config makes no model: {type(error).__name__}: {message[:300]}") from error
    return folder


def _prune_student(name: str, pruned: PrunedStudent, calibration: Sequence[str], bases: Path) -> Path:
    """The folder of a checkpoint without the layers of least influence."""
    spec = parse_model(pruned.prune)
    checkpoint = locate(spec)
    base = checkpoint.adapter_of or checkpoint
    sources = {checkpoint.path: checkpoint, base.path: base}.values()  # an adapter and its base, or one checkpoint
    checkpoint_digests = [fingerprint(spec, source) for source in sources]
    folder = bases / f"pruned-{_short_hash(*checkpoint_digests, *calibration)}-{pruned.layers}"
    if (folder / "config.json").is_file():
        return folder
    model, tokenizer = loaded(spec, checkpoint)
    layer_stack_name, layers = _layer_stack(model, name)
    if pruned.layers >= len(layers):
        raise DistillError(f"{name}: student.layers is {pruned.layers}: ask for fewer than {spec.spec_text} has.")
    influence = _block_influence(model, tokenizer, layers, calibration)
    remaining = sorted(sorted(range(len(layers)), key=lambda n: -influence[n])[: pruned.layers])
    facts = {"pruned_from": spec.spec_text, "kept": remaining, "importance": [round(value, 6) for value in influence]}
    with whole_folder(folder) as partial_folder:
        _keep_only_layers(model, layer_stack_name, remaining).save_pretrained(partial_folder)
        tokenizer.save_pretrained(partial_folder)
        (partial_folder / "pruned.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    return folder


def _layer_stack(model: Any, name: str) -> tuple[str, Any]:
    """The name and the module list of a model's layers: the one list that is as long as its config says."""
    import torch

    n = model.config.get_text_config(decoder=True).num_hidden_layers
    module_lists = [(key, module) for key, module in model.named_modules() if isinstance(module, torch.nn.ModuleList)]
    layer_stacks = [(key, module) for key, module in module_lists if len(module) == n]
    if len(layer_stacks) != 1:
        raise DistillError(f"{name}: {type(model).__name__} has no single stack of {n} layers that could be pruned.")
    return layer_stacks[0]


def _block_influence(model: Any, tokenizer: Any, layers: Any, texts: Sequence[str]) -> list[float]:
    """Block influence of each layer: 1 - cosine of its input and output, the mean over tokens (arXiv 2403.03853)."""
    import torch

    sums, count = [0.0] * len(layers), 0

    def make_influence_hook(layer: int) -> Any:
        def hook(module: Any, args: Any, kwargs: Any, output: Any) -> None:
            # hidden states of shape (1, tokens, width)
            layer_input = args[0] if args else kwargs["hidden_states"]
            layer_output = output[0] if isinstance(output, tuple) else output
            sums[layer] += float((1 - torch.cosine_similarity(layer_input, layer_output, dim=-1)).sum())

        return hook

    hooks = [layer.register_forward_hook(make_influence_hook(n), with_kwargs=True) for n, layer in enumerate(layers)]
    try:
        with torch.no_grad():
            for text in texts:
                ids = tokenizer.encode(text)[:_CALIBRATION_TOKENS]
                if ids:
                    model.eval()(input_ids=torch.tensor([ids]), use_cache=False)
                    count += len(ids)
    finally:
        for hook in hooks:
            hook.remove()
    return [total / max(count, 1) for total in sums]


def _keep_only_layers(model: Any, layer_stack_name: str, remaining: Sequence[int]) -> Any:
    """The same model with some of its layers, numbered anew."""
    import copy

    shape = copy.deepcopy(model.config)
    text = shape.get_text_config(decoder=True)
    text.num_hidden_layers = len(remaining)
    if getattr(text, "layer_types", None):
        text.layer_types = [text.layer_types[n] for n in remaining]
    new_number = {old_index: new_index for new_index, old_index in enumerate(remaining)}
    pattern = re.compile(rf"^{re.escape(layer_stack_name)}\.(\d+)\.")
    weights = {}
    for key, value in model.state_dict().items():
        match = pattern.match(key)
        if match is None:  # embeddings, norms, the head
            weights[key] = value
        elif int(match[1]) in new_number:
            weights[f"{layer_stack_name}.{new_number[int(match[1])]}.{key[match.end() :]}"] = value
    smaller = type(model)(shape).to(next(model.parameters()).dtype)
    smaller.load_state_dict(weights)
    smaller.generation_config = model.generation_config
    return smaller


def _short_hash(*hashed_texts: str) -> str:
    return hashlib.sha256("\0".join(hashed_texts).encode()).hexdigest()[:10]
