"""Files beside a student's weights: its row of the models table (``capgap.json``) and the record of its training."""

from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capgap.distillation.config import DistillConfig
from capgap.distillation.data.selection import SelectedExamples, count_by_capability
from capgap.distillation.data.tokenised import TokenisedDataset
from capgap.distillation.identity import recipe_hash
from capgap.distillation.job import DistillJob
from capgap.distillation.students.student import LoadedStudent, relativise_base_path
from capgap.distillation.teacher.generations import TeacherGenerations
from capgap.distillation.training.step_plan import StepPlan
from capgap.models import parse_model
from capgap.models.checkpoint import file_hashes

if TYPE_CHECKING:
    from capgap.distillation.training.trainer import TrainingResult


def model_row(
    job: DistillJob,
    student: LoadedStudent,
    model: Any,
    selection: SelectedExamples,
    dataset: TokenisedDataset,
    plan: StepPlan,
) -> dict[str, Any]:
    """The student's row of the models table, as far as it is known before training.

    Parameters
    ----------
    job, student
        The file and the directory, to which paths of base and teachers are relative, and the student before it learns.
    model
        The student's model as it will train, with its adapter.
    selection, dataset, plan
        What it learns from, and for how long.
    """
    config, out = job.config, job.out
    architecture = getattr(student.model.config, "text_config", None) or student.model.config
    parameters = list(model.parameters())
    n_trainable = sum(p.numel() for p in parameters if p.requires_grad)
    n_parameters = sum(p.numel() for p in parameters)
    return {
        "model": config.name,
        "recipe": recipe_hash(config.canonical_config),
        "base": relativise_base_path(student.base, out),
        "teachers": None
        if config.supervision_kind.is_control
        else "; ".join(relativise_base_path(parse_model(word).spec_text, out) for word in config.teacher),
        "seed": config.seed,
        "data_seed": config.effective_data_seed,
        "base_seed": student.base_seed,
        "n_examples": config.n_examples or len(selection.examples),
        "n_examples_by_capability": count_by_capability(dataset.examples),
        "n_unique": len(dataset.examples),
        "diversity": config.diversity,
        "train_tasks": config.train_tasks,
        "architecture": (student.model.config.architectures or [type(student.model).__name__])[0],
        "n_params": n_parameters - (n_trainable if config.adaptation != "full" else 0),
        "n_trainable": n_trainable,
        "n_layers": getattr(architecture, "num_hidden_layers", None),
        "width": getattr(architecture, "hidden_size", None),
        "adaptation": config.adaptation,
        "supervision": config.supervision,
        "objective": _describe_objective(config),
        "lr": config.lr,
        "epochs": plan.epochs,
        "data_hash": dataset.data_hash,
        "prompting": replace(student.prompting, think_end=None).as_text(),
    }


def run_record(
    identity: dict[str, Any],
    selection: SelectedExamples,
    dataset: TokenisedDataset,
    generations: TeacherGenerations | None,
    distribution_facts: dict[str, Any] | None,
    result: "TrainingResult",
) -> dict[str, Any]:
    """The content of ``distill.json``: identity, counts, the teacher's accuracy, the learning curve.

    Parameters
    ----------
    identity
        Of the student.
    selection, dataset
        What it learnt from.
    generations, distribution_facts
        The teacher's texts, and facts about its cached distributions; None where there are none.
    result
        Of training.
    """
    teacher = None
    if generations is not None:
        excluded_fields = {"pairs", "facts", "confidence"}
        teacher = {key: value for key, value in asdict(generations).items() if key not in excluded_fields}
        teacher["accuracy"] = generations.accuracy
        teacher["weights_hash"] = generations.facts.get("weights_hash")
    return {
        "identity": identity,
        "n_available": selection.n_available,
        "n_held_out": selection.n_held_out,
        "n_near": selection.n_near_duplicates,
        "n_repeated": selection.n_repeated,
        "n_without_trace": selection.n_dropped_for_no_steps,
        "n_trained_on": len(dataset.examples),
        "n_too_long": dataset.n_too_long,
        "n_prompts_cut": dataset.n_truncated,
        "teacher": teacher,
        "distributions": distribution_facts,
        "losses": result.losses,
        "terms": result.terms,
        "seconds": round(result.seconds, 1),
    }


def row_after_training(out: Path, result: "TrainingResult") -> dict[str, Any]:
    """The part of the row that is known when the weights are on the disk: counts, digest, time."""
    patterns = ("*.safetensors", "config.json", "generation_config.json", "adapter_config.json")
    return {
        "steps": result.steps,
        "tokens": result.tokens,
        "loss_tokens": result.n_loss_tokens,
        "weights_hash": file_hashes(out, patterns),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _describe_objective(config: DistillConfig) -> str:
    """The objective in one word, or a sum of them."""
    if not config.supervision_kind.learns_distributions:
        return "cross_entropy"
    return f"{config.divergence}{' + cross_entropy' if config.objective.cross_entropy else ''}"
