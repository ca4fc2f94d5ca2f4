"""What stays of a training run beside its weights: the row of the models table, and the story."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capgap.distillation.config import DistillConfig
from capgap.distillation.data.selection import SelectedExamples
from capgap.distillation.data.tokenised import TokenisedDataset
from capgap.distillation.identity import recipe
from capgap.distillation.teacher.generations import TeacherGenerations

if TYPE_CHECKING:
    from capgap.distillation.students.student import LoadedStudent
    from capgap.distillation.training.trainer import TrainingResult

__all__ = ["model_row", "story", "written"]


def model_row(
    config: DistillConfig,
    student: "LoadedStudent",
    model: Any,
    *,
    chosen: SelectedExamples,
    lesson: TokenisedDataset,
    said: TeacherGenerations | None,
    out: Path,
) -> dict[str, Any]:
    """The student's row of the models table, as far as it is known before training."""
    from capgap.distillation.students.student import base_from
    from capgap.models import parse_model

    by_capability = SelectedExamples(lesson.examples, 0, 0, 0, 0).by_capability
    architecture = getattr(student.model.config, "text_config", None) or student.model.config
    parameters = list(model.parameters())
    n_trainable = sum(p.numel() for p in parameters if p.requires_grad)
    n_all = sum(p.numel() for p in parameters)
    return {
        "model": config.name,
        "recipe": recipe(config),
        "base": base_from(student.base, out),
        "teachers": None
        if config.is_control
        else "; ".join(base_from(parse_model(word).spec_text, out) for word in config.teacher),
        "seed": config.seed,
        "data_seed": config.effective_data_seed,
        "base_seed": student.base_seed,
        "n_examples": config.n_examples or len(chosen.examples),
        "n_examples_by_capability": by_capability,
        "n_unique": len(lesson.examples),
        "diversity": config.diversity,
        "train_tasks": config.train_tasks,
        "architecture": (student.model.config.architectures or [type(student.model).__name__])[0],
        "n_params": n_all - (n_trainable if config.adaptation != "full" else 0),
        "n_trainable": n_trainable,
        "n_layers": getattr(architecture, "num_hidden_layers", None),
        "width": getattr(architecture, "hidden_size", None),
        "adaptation": config.adaptation,
        "supervision": config.supervision,
        "objective": _objective(config),
        "lr": config.lr,
        "epochs": lesson.plan.epochs,
        "data_hash": lesson.data_hash,
        "prompting": _prompting(student),
    }


def story(
    chosen: SelectedExamples,
    lesson: TokenisedDataset,
    said: TeacherGenerations | None,
    trained: "TrainingResult",
    wanted: dict[str, Any],
    judged: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What was asked and how it went: identity, counts, the teacher's accuracy, the loss on the way."""
    teacher = None
    if said is not None:
        teacher = {key: value for key, value in asdict(said).items() if key not in {"pairs", "facts", "sure"}}
        teacher["accuracy"] = said.accuracy
        teacher["weights_hash"] = said.facts.get("weights_hash")
    return {
        "identity": wanted,
        "n_available": chosen.n_available,
        "n_held_out": chosen.n_held_out,
        "n_near": chosen.n_near,
        "n_repeated": chosen.n_repeated,
        "n_without_trace": chosen.n_without_trace,
        "n_trained_on": len(lesson.examples),
        "n_too_long": lesson.n_too_long,
        "n_prompts_cut": lesson.n_cut,
        "teacher": teacher,
        "distributions": judged,
        "losses": trained.losses,
        "terms": trained.terms,
        "seconds": round(trained.seconds, 1),
    }


def written(out: Path, trained: "TrainingResult") -> dict[str, Any]:
    """The part of the row that is known when the weights are on the disk."""
    from capgap.models.checkpoint import file_hashes

    patterns = ("*.safetensors", "config.json", "generation_config.json", "adapter_config.json")
    counts = {"steps": trained.steps, "tokens": trained.tokens, "loss_tokens": trained.loss_tokens}
    return {
        **counts,
        "weights_hash": file_hashes(out, patterns),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _objective(config: DistillConfig) -> str:
    """The objective in one word, or a sum of them."""
    if not config.distributions:
        return "cross_entropy"
    return config.divergence + (" + cross_entropy" if config.objective.cross_entropy else "")


def _prompting(student: "LoadedStudent") -> str:
    known = {"chat_template": student.chat, "system_prompt": student.system_prompt}
    known["enable_thinking"] = student.enable_thinking
    return json.dumps({key: value for key, value in known.items() if value is not None}, sort_keys=True)
