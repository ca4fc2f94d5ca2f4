"""The teachers' distributions for one lesson: what each is asked, and whether it speaks the student's tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from capgap.distillation.config import DistillConfig
from capgap.distillation.data.encoding import IGNORE, EncodedExample, ExampleEncoder
from capgap.distillation.data.tokenised import TokenisedDataset
from capgap.distillation.students.loading import fingerprint, loaded, model_config, model_tokenizer
from capgap.distillation.teacher.distributions import (
    CachedSignals,
    CacheForm,
    OnlineTeacher,
    ScoredText,
    bytes_per_token,
    choose_form,
    score_texts,
)
from capgap.distillation.teacher.prompt_context import PromptContext, teacher_spec
from capgap.distillation.training.batch_source import Signals
from capgap.distillation.training.micro_batches import n_inputs
from capgap.distillation.training.on_policy import OnPolicyBatches
from capgap.errors import DistillError

if TYPE_CHECKING:
    from capgap.distillation.students.student import LoadedStudent

__all__ = ["TeacherSignals", "online_teacher", "check_tokenizers", "teacher_signals"]

CACHES = "teacher-cache"
"""Folder of teachers' signals beside the output directories that use them."""


@dataclass(frozen=True)
class TeacherSignals:
    """What the teachers say to a lesson."""

    judged: tuple[CachedSignals, ...]
    """Each teacher's signals."""
    form: str
    """How they are kept."""
    shares: tuple[float, ...]
    """Each teacher's share of the mixture."""

    @property
    def signals(self) -> Signals:
        """For `Material`."""
        return lambda names: tuple(one.signal(names) for one in self.judged)

    def story(self) -> dict[str, Any]:
        """For the record."""
        return {
            "form": self.form,
            "computed": [one.n_computed for one in self.judged],
            "caches": [one.cache.folder.name for one in self.judged],
            "error": [one.cache.told().get("error") for one in self.judged],
        }


def teacher_signals(
    config: DistillConfig,
    student: "LoadedStudent",
    lesson: TokenisedDataset,
    context: PromptContext,
    *,
    out: Path,
    folder: Path,
    device: str | None,
    tell: Callable[[str], None],
    progress: Callable[[int], None],
) -> TeacherSignals:
    """Ask the teacher about every token of a lesson that carries loss.

    Raises
    ------
    DistillError
        The teacher gives no distributions, or over other tokens than the student's.
    """
    root = folder / config.cache.folder if config.cache.folder else out.parent / CACHES
    teachers = [_LocatedTeacher.found(config, word, device) for word in config.teacher]
    n_vocabulary = min(_common(config, student, teacher, tell) for teacher in teachers)
    kept = config.cache
    # Together, since only what is kept in one form can be mixed.
    form = choose_form(
        kept.mode, k=kept.k, max_gb=kept.max_gb, temperature=config.objective.temperature,
        divergence=config.divergence, n_tokens=sum(one.n_loss for one in lesson.encoded),
        width=sum(teacher.shape.hidden_size for teacher in teachers),
    )  # fmt: skip
    judged = tuple(
        _judged(config, teacher, lesson, context, form, n_vocabulary, root, tell, progress) for teacher in teachers
    )
    return TeacherSignals(judged, form.mode, config.shares)


def _judged(
    config: DistillConfig,
    teacher: "_LocatedTeacher",
    lesson: TokenisedDataset,
    context: PromptContext,
    form: CacheForm,
    n_vocabulary: int,
    root: Path,
    tell: Callable[[str], None],
    progress: Callable[[int], None],
) -> CachedSignals:
    """What one teacher says to a lesson."""
    encoder = teacher.encoder()
    questions = [
        _question(encoder, None if example.messages is not None else context.prompt(example), completion, encoded)
        for example, completion, encoded in zip(lesson.examples, lesson.completions, lesson.encoded, strict=True)
    ]
    n_tokens = sum(len(question.at) for question in questions)
    each = bytes_per_token(form.mode, width=teacher.shape.hidden_size, k=form.k)
    tell(
        f"{config.name}: teacher's {form.mode} for {n_tokens:,} tokens, {each:,} bytes each, "
        f"{each * n_tokens / 1e6:,.1f} MB in {root}"
    )
    return score_texts(
        teacher.load, teacher.identity, questions, form,
        root=root, n_vocabulary=n_vocabulary, device=teacher.device, tell=tell, progress=progress,
    )  # fmt: skip


def online_teacher(
    config: DistillConfig,
    student: "LoadedStudent",
    model: Any,
    lesson: TokenisedDataset,
    *,
    device: str | None,
    tell: Callable[[str], None],
) -> OnPolicyBatches:
    """A lesson of prompts, whose texts the student writes and the teacher judges as it learns.

    Raises
    ------
    DistillError
        As `teacher_signals`.
    """
    if any(example.messages is not None for example in lesson.examples):
        raise DistillError(f"{config.name}: on_policy asks prompts, and messages carry their own answers.")
    (word,) = config.teacher
    teacher = _LocatedTeacher.found(config, word, device)
    n_vocabulary = _common(config, student, teacher, tell)
    encoder = teacher.encoder()
    prompts = []
    for example, completion, encoded in zip(lesson.examples, lesson.completions, lesson.encoded, strict=True):
        asked = encoder.pair(example.prompt, completion)
        assert asked is not None  # the student's own limit is no longer
        prompts.append((_prompt_ids(encoded), _prompt_ids(asked)))
    longest = max(example.asking.max_tokens for example in lesson.examples)
    room = student.max_length - max(len(own) for own, _ in prompts)
    wanted = min(config.on_policy.max_tokens or min(longest, 256), room)
    if wanted < 1:
        raise DistillError(
            f"{config.name}: a prompt fills all of the {student.max_length} tokens that a student holds."
        )
    live = OnlineTeacher(teacher.load().to(teacher.device), n_vocabulary, [asked for _, asked in prompts], tell)
    return OnPolicyBatches(
        lesson.encoded, tuple(lesson.items), tuple(prompts), model, live, max_tokens=wanted,
        temperature=config.on_policy.temperature, seed=config.seed, eos=int(student.tokenizer.eos_token_id),
        pad=student.pad,
    )  # fmt: skip


def _prompt_ids(encoded: EncodedExample) -> tuple[int, ...]:
    """The tokens before the first that carries loss."""
    return encoded.input_ids[: next(place for place, label in enumerate(encoded.labels) if label != IGNORE)]


def _common(
    config: DistillConfig, student: "LoadedStudent", teacher: "_LocatedTeacher", tell: Callable[[str], None]
) -> int:
    """How many ids both know."""
    note = check_tokenizers(config.name, student.tokenizer, teacher.tokenizer)
    if note:
        tell(f"{config.name}: {note}")
    own = int(student.model.get_input_embeddings().weight.shape[0])
    common = min(int(teacher.shape.vocab_size), own)
    if teacher.shape.vocab_size != own:
        tell(
            f"{config.name}: the teacher's table has {teacher.shape.vocab_size:,} ids and the student's {own:,}; "
            f"they are compared over the first {common:,}"
        )
    return common


@dataclass(frozen=True)
class _LocatedTeacher:
    """A teacher that is asked for distributions, found and not loaded."""

    spec: Any
    checkpoint: Any
    tokenizer: Any
    shape: Any
    """Its text config."""
    device: str

    @classmethod
    def found(cls, config: DistillConfig, word: str, device: str | None) -> Self:
        """The teacher that a file names."""
        from capgap.models import choose_device
        from capgap.models.checkpoint import locate
        from capgap.models.model_spec import BACKENDS

        spec = teacher_spec(config, word)
        if spec.kind in BACKENDS:
            raise DistillError(
                f"{config.name}: teacher {spec.spec_text} gives texts, not distributions over every token. Use a "
                "checkpoint, or supervision: answers or traces."
            )
        checkpoint = locate(spec)
        tokenizer = model_tokenizer(spec, checkpoint)
        return cls(spec, checkpoint, tokenizer, model_config(spec, checkpoint), choose_device(device))

    @property
    def dtype(self) -> str:
        """What it computes in."""
        return str(self.spec.get("dtype") or ("float32" if self.device == "cpu" else "auto"))

    @property
    def identity(self) -> dict[str, Any]:
        """What tells it from every other teacher; its tokens and prompting are in what it is asked."""
        base = self.checkpoint.adapter_of
        return {
            "teacher": fingerprint(self.spec, self.checkpoint),
            "base": None if base is None else fingerprint(self.spec, base),
            "dtype": self.dtype,
        }

    def encoder(self) -> ExampleEncoder:
        """How it is addressed."""
        from capgap.models import prompting_of

        prompting = prompting_of(self.spec, self.checkpoint)
        thinking = prompting.enable_thinking
        return ExampleEncoder(
            self.tokenizer,
            max_length=int(getattr(self.shape, "max_position_embeddings", None) or 1 << 30),
            chat=prompting.chat_template,
            system_prompt=prompting.system_prompt,
            template_options={} if thinking is None else {"enable_thinking": thinking},
        )

    def load(self) -> Any:
        """The model itself."""
        return loaded(self.spec, self.checkpoint, dtype=self.dtype)[0]


def _question(encoder: ExampleEncoder, prompt: str | None, completion: str, student: EncodedExample) -> ScoredText:
    """An example as the teacher meets it: its own prompt, and the student's own tokens behind it."""
    n = n_inputs(student)
    first = next(place for place, label in enumerate(student.labels) if label != IGNORE)
    at = tuple(place - 1 for place, label in enumerate(student.labels) if label != IGNORE)
    if prompt is None:
        return ScoredText(student.input_ids[:n], at)
    asked = encoder.pair(prompt, completion)
    assert asked is not None  # the student's own limit is no longer
    begin = next(place for place, label in enumerate(asked.labels) if label != IGNORE)
    ids = (*asked.input_ids[:begin], *student.input_ids[first:n])
    return ScoredText(ids, tuple(place - first + begin for place in at))


def check_tokenizers(name: str, student: Any, teacher: Any) -> str | None:
    """A note where one tokenizer knows more tokens than the other; None where they are the same.

    Raises
    ------
    DistillError
        A token has another id, or a text is cut into other tokens.
    """
    own, other = student.get_vocab(), teacher.get_vocab()
    differ = next((token for token, index in own.items() if other.get(token, index) != index), None)
    probe = "A probe, 12345 tokens: Ärger — \n\tdef f(x): return x**2  # 你好"
    same = _bare(student, probe) == _bare(teacher, probe)
    shared = own.keys() & other.keys()
    if differ is not None or not same or len(shared) < 0.99 * min(len(own), len(other)):
        what = f"token {differ!r} is {own[differ]} and {other[differ]}" if differ else "they cut a text differently"
        raise DistillError(
            f"{name}: the teacher's tokenizer is not the student's ({what}), and a distribution over other tokens "
            "cannot be learnt. Use supervision: answers or traces, which pass texts on."
        )
    if len(own) == len(other):
        return None
    fewer = min(len(own), len(other))
    return (
        f"the tokenizers share {len(shared):,} tokens; {max(len(own), len(other)) - fewer:,} more are one side's only"
    )


def _bare(tokenizer: Any, text: str) -> Sequence[int]:
    ids: Sequence[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids
