"""Step sources: for each signal of a supervision, the function that makes the source of micro-batches."""

from collections.abc import Callable
from typing import Any

from capgap.distillation.data.tokenised import TokenisedDataset
from capgap.distillation.job import DistillJob
from capgap.distillation.students.student import LoadedStudent
from capgap.distillation.supervision import SignalKind
from capgap.distillation.teacher.prompt_context import PromptBuilder
from capgap.distillation.teacher.signals import teacher_signals
from capgap.distillation.training.batch_source import BatchSource, StoredBatches
from capgap.distillation.training.on_policy import on_policy_batches


def _make_text_batches(
    job: DistillJob, student: LoadedStudent, model: Any, dataset: TokenisedDataset, context: PromptBuilder
) -> BatchSource:
    return StoredBatches(dataset.items, dataset.encoded)


def _cached_distributions(
    job: DistillJob, student: LoadedStudent, model: Any, dataset: TokenisedDataset, context: PromptBuilder
) -> BatchSource:
    return StoredBatches(dataset.items, dataset.encoded, teacher_signals(job, student, dataset, context))


BATCH_SOURCE_FACTORIES: dict[SignalKind, Callable[..., BatchSource]] = {
    "texts": _make_text_batches, "cached": _cached_distributions, "online": on_policy_batches
}  # fmt: skip
"""By `SignalKind`; each gets the job, the student, its model as it trains (with the adapter),
the dataset and what the teacher sees besides."""
