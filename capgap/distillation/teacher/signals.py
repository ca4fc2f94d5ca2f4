"""Teacher signals of one dataset: the cached distributions of each teacher, and the check that tokenizers agree."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from capgap.distillation.config import DistillConfig
from capgap.distillation.data.encoding import EncodedExample, ExampleEncoder
from capgap.distillation.data.tokenised import TokenisedDataset
from capgap.distillation.job import DistillJob
from capgap.distillation.students.loading import fingerprint, loaded, model_config, model_tokenizer
from capgap.distillation.students.student import LoadedStudent
from capgap.distillation.teacher.distributions import CachedSignals, ScoredText, score_texts
from capgap.distillation.teacher.prompt_context import PromptBuilder, teacher_spec
from capgap.distillation.teacher.signal_forms import CacheForm, TeacherSignal, cache_token_bytes, choose_cache_form
from capgap.errors import DistillError
from capgap.models import choose_device, resolve_prompting
from capgap.models.checkpoint import locate
from capgap.models.model_spec import BACKENDS

__all__ = ["LocatedTeacher", "TeacherSignals", "check_tokenizers", "shared_vocabulary", "teacher_signals"]

TEACHER_CACHE_FOLDER = "teacher-cache"
"""Folder of teachers' signals beside the output directories that use them."""


@dataclass(frozen=True)
class TeacherSignals:
    """The signals of all teachers for a dataset."""

    signals_by_teacher: tuple[CachedSignals, ...]
    """Each teacher's, shape (teachers,)."""
    form: str
    """How they are kept."""

    def signals_for(self, indices: Sequence[int]) -> tuple[TeacherSignal, ...]:
        """Each teacher's signal at the positions of some examples that carry loss, one example after the other."""
        return tuple(cached_signals.signal(indices) for cached_signals in self.signals_by_teacher)

    def record(self) -> dict[str, Any]:
        """Form, counts, caches and what keeping costs, for ``distill.json``."""
        return {
            "form": self.form,
            "computed": [cached_signals.n_computed for cached_signals in self.signals_by_teacher],
            "caches": [cached_signals.cache.folder.name for cached_signals in self.signals_by_teacher],
            "error": [cached_signals.cache.facts().get("error") for cached_signals in self.signals_by_teacher],
        }


def teacher_signals(
    job: DistillJob, student: LoadedStudent, dataset: TokenisedDataset, context: PromptBuilder
) -> TeacherSignals:
    """Every teacher's distributions at the tokens of a dataset that carry loss, from their caches where they are there.

    Raises
    ------
    DistillError
        A teacher gives no distributions, or over other tokens than the student's.
    """
    config, cache = job.config, job.config.cache
    teachers = [LocatedTeacher.locate_teacher(config, word, job.device) for word in config.teacher]
    n_vocabulary = min(shared_vocabulary(job, student, teacher) for teacher in teachers)
    # One form for all of them, since only what is kept in one form can be mixed.
    form = choose_cache_form(
        cache.mode, k=cache.k, max_gb=cache.max_gb, temperature=config.objective.temperature,
        divergence=config.divergence, n_tokens=sum(encoded.n_loss_tokens for encoded in dataset.encoded),
        width=sum(teacher.text_config.hidden_size for teacher in teachers),
    )  # fmt: skip
    signals_by_teacher = tuple(_get_signals(job, teacher, dataset, context, form, n_vocabulary) for teacher in teachers)
    n_computed_texts = sum(cached_signals.n_computed for cached_signals in signals_by_teacher)
    job.note(f"the teacher was asked {n_computed_texts:,} of {len(dataset.examples):,} texts")
    return TeacherSignals(signals_by_teacher, form.mode)


def _get_signals(
    job: DistillJob,
    teacher: "LocatedTeacher",
    dataset: TokenisedDataset,
    context: PromptBuilder,
    form: CacheForm,
    n_vocabulary: int,
) -> CachedSignals:
    """One teacher's signals."""
    encoder = teacher.encoder()
    texts = [
        _scored_text(encoder, None if example.messages is not None else context.prompt(example), completion, encoded)
        for example, completion, encoded in zip(dataset.examples, dataset.completions, dataset.encoded, strict=True)
    ]
    root = job.folder / job.config.cache.folder if job.config.cache.folder else job.out.parent / TEACHER_CACHE_FOLDER
    n_tokens = sum(len(text.positions) for text in texts)
    bytes_per_position = cache_token_bytes(form.mode, width=teacher.text_config.hidden_size, k=form.k)
    job.note(
        f"teacher's {form.mode} for {n_tokens:,} tokens, {bytes_per_position:,} bytes each, "
        f"{bytes_per_position * n_tokens / 1e6:,.1f} MB in {root}"
    )
    return score_texts(
        teacher.load, teacher.identity, texts, form,
        root=root, n_vocabulary=n_vocabulary, device=teacher.device, on_event=job.on_event,
    )  # fmt: skip


def shared_vocabulary(job: DistillJob, student: LoadedStudent, teacher: "LocatedTeacher") -> int:
    """How many token ids the tables of student and teacher share, from the first on.

    Raises
    ------
    DistillError
        As `check_tokenizers`.
    """
    difference = check_tokenizers(job.config.name, student.tokenizer, teacher.tokenizer)
    if difference:
        job.note(difference)
    student_vocabulary_size = int(student.model.get_input_embeddings().weight.shape[0])
    teacher_vocabulary_size = int(teacher.text_config.vocab_size)
    n_shared = min(teacher_vocabulary_size, student_vocabulary_size)
    if teacher_vocabulary_size != student_vocabulary_size:
        job.note(
            f"the teacher's table has {teacher_vocabulary_size:,} ids and the student's {student_vocabulary_size:,}; "
            f"they are compared over the first {n_shared:,}"
        )
    return n_shared


@dataclass(frozen=True)
class LocatedTeacher:
    """A teacher whose distributions are wanted: its files, located and not loaded."""

    spec: Any
    checkpoint: Any
    tokenizer: Any
    text_config: Any
    """The transformers config of its text model."""
    device: str

    @classmethod
    def locate_teacher(cls, config: DistillConfig, word: str, device: str | None) -> Self:
        """The teacher that a word of the file names.

        Raises
        ------
        DistillError
            It answers in texts alone.
        """
        spec = teacher_spec(config, word)
        if spec.kind in BACKENDS:
            raise DistillError(
                f"{config.name}: teacher {spec.spec_text} gives texts, not distributions over every token. Use a "
                "checkpoint, or supervision: answers or traces."
            )
        checkpoint = locate(spec)
        text_config = model_config(spec, checkpoint)
        return cls(spec, checkpoint, model_tokenizer(spec, checkpoint), text_config, choose_device(device))

    @property
    def dtype(self) -> str:
        """What it computes in."""
        return str(self.spec.get("dtype") or ("float32" if self.device == "cpu" else "auto"))

    @property
    def identity(self) -> dict[str, Any]:
        """What tells it from every other teacher; its tokens and prompting are in the address of each text."""
        base = self.checkpoint.adapter_of
        return {
            "teacher": fingerprint(self.spec, self.checkpoint),
            "base": None if base is None else fingerprint(self.spec, base),
            "dtype": self.dtype,
        }

    def encoder(self) -> ExampleEncoder:
        """The encoder of its prompts, as its evaluation addresses it."""
        max_length = int(getattr(self.text_config, "max_position_embeddings", None) or 1 << 30)
        prompting = resolve_prompting(self.spec, self.checkpoint)
        return ExampleEncoder(self.tokenizer, max_length=max_length, prompting=prompting)

    def load(self) -> Any:
        """The model itself."""
        return loaded(self.spec, self.checkpoint, dtype=self.dtype)[0]


def _scored_text(encoder: ExampleEncoder, prompt: str | None, completion: str, student: EncodedExample) -> ScoredText:
    """An example as the teacher is given it: the teacher's own prompt, and the student's tokens behind it."""
    # A token is predicted by the one before it.
    positions = tuple(index - 1 for index in student.loss_indices)
    if prompt is None:
        return ScoredText(student.input_ids[: student.n_inputs], positions)
    encoded = encoder.pair(prompt, completion)
    assert encoded is not None  # the student's own limit is no longer
    n_student_prompt_ids, n_teacher_prompt_ids = len(student.prompt_ids), len(encoded.prompt_ids)
    ids = (*encoded.prompt_ids, *student.input_ids[n_student_prompt_ids : student.n_inputs])
    return ScoredText(ids, tuple(position - n_student_prompt_ids + n_teacher_prompt_ids for position in positions))


def check_tokenizers(name: str, student: Any, teacher: Any) -> str | None:
    """A sentence where one tokenizer knows more tokens than the other; None where they are the same.

    Raises
    ------
    DistillError
        A token has another id, or a text is cut into other tokens.
    """
    ids, teacher_ids = student.get_vocab(), teacher.get_vocab()
    differ = next((token for token, index in ids.items() if teacher_ids.get(token, index) != index), None)
    probe = "A probe, 12345 tokens: Ärger — \n\tdef f(x): return x**2  # 你好"
    probe_matches = student.encode(probe, add_special_tokens=False) == teacher.encode(probe, add_special_tokens=False)
    shared_tokens = ids.keys() & teacher_ids.keys()
    smaller_size, larger_size = sorted((len(ids), len(teacher_ids)))
    if differ is not None or not probe_matches or len(shared_tokens) < 0.99 * smaller_size:
        what = f"token {differ!r} is {ids[differ]} and {teacher_ids[differ]}" if differ else "texts are cut differently"
        raise DistillError(
            f"{name}: the teacher's tokenizer is not the student's ({what}), and a distribution over other tokens "
            "cannot be learnt. Use supervision: answers or traces, which pass texts on."
        )
    if smaller_size == larger_size:
        return None
    return (
        f"the tokenizers share {len(shared_tokens):,} tokens; {larger_size - smaller_size:,} more are one side's only"
    )
