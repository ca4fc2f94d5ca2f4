"""Teacher generations: a teacher's texts for the prompts, generated through lm-eval and kept in a ledger."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from capgap.distillation.config import DistillConfig
from capgap.distillation.config_keys import GenerationKeys
from capgap.distillation.data.selection import TrainingExample
from capgap.distillation.data.targets import answer_text, graded, leading_delimiter
from capgap.distillation.job import DistillJob
from capgap.distillation.teacher.prompt_context import PromptBuilder, teacher_spec
from capgap.errors import DistillError
from capgap.events import stage
from capgap.models import Ledger, load_model, respond

__all__ = ["TaskItemKey", "TeacherGenerations", "generate_texts"]

TaskItemKey = tuple[str, str]
"""Task and item."""
Responses = Sequence[Sequence[Any]]
"""Of each example: one response, or one for each choice; shape (examples, 1 or choices)."""


@dataclass(frozen=True)
class TeacherGenerations:
    """A teacher's usable texts as completions, and counts of the others."""

    pairs: tuple[tuple[TrainingExample, str], ...]
    """Examples and the completions to train on."""
    n_asked: int
    """Prompts."""
    n_right: int | None
    """How many the teacher got right; None where nothing here can tell."""
    n_unparsed: int
    """Texts without a readable answer; dropped."""
    n_cut: int
    """Texts that met the limit of tokens; dropped."""
    n_wrong_dropped: int
    """Wrong answers that ``keep: correct`` dropped."""
    facts: dict[str, Any] = field(default_factory=dict)
    """The teacher's row of the models table."""
    confidence: dict[TaskItemKey, float] = field(default_factory=dict)
    """Mean log-probability of a character of the teacher's own text, nats, where it was measured."""
    shares: tuple[float, ...] = ()
    """Of a team: whose texts were chosen."""

    @property
    def accuracy(self) -> float | None:
        """Share of the prompts that the teacher got right."""
        return None if self.n_right is None or not self.n_asked else self.n_right / self.n_asked


def generate_texts(
    job: DistillJob, word: str, examples: Sequence[TrainingExample], context: PromptBuilder, *, ledger: Path
) -> TeacherGenerations:
    """A teacher's completions of all prompts, as the file wants them: texts, limits, and whether wrong ones are kept.

    Parameters
    ----------
    job
        Its listener hears of the stage "teacher's texts".
    word
        The teacher, as the file names it.
    examples
        The prompts; of choice tasks, the choice that the teacher finds likeliest is its answer.
    context
        What the teacher sees besides.
    ledger
        SQLite file in which responses are looked up and kept.

    Raises
    ------
    ModelError
        The teacher cannot be loaded or asked.
    DistillError
        A conversation is given, or nothing that the teacher said can be used.
    """
    if any(example.messages is not None for example in examples):
        raise DistillError("messages carry their own answers; a teacher is asked prompts. Give prompt and completion.")
    config = job.config
    measures_confidence = len(config.teacher) > 1 and config.team.choose == "confidence"
    model = load_model(teacher_spec(config, word), device=job.device)
    requests = [_build_requests(model, example, config.generation, context.prompt(example)) for example in examples]
    if measures_confidence and not model.can_score:
        raise DistillError(f"teacher {model.name}: {model.no_scores_reason}, which team.choose: confidence needs.")
    batch = [request for group in requests for request in group]
    with Ledger(ledger) as cache, stage(job.on_event, "teacher's texts", len(batch), "response") as on_progress:
        answered = iter(respond(model, batch, cache, progress=lambda computed, cached: on_progress(computed + cached)))
        responses = [[next(answered)[0] for _ in group] for group in requests]
        text_confidence = _score_confidence(model, examples, requests, responses, cache) if measures_confidence else {}
    usable_texts = _usable(examples, responses, config)
    generations = replace(usable_texts, facts=model.facts, confidence=text_confidence)
    if not generations.pairs:
        raise DistillError(
            f"teacher {model.name}: none of its {generations.n_asked} texts can be used ({generations.n_cut} cut at "
            f"the limit of tokens, {generations.n_unparsed} without a readable answer, "
            f"{generations.n_wrong_dropped} wrong). "
            "Raise generation.max_tokens, or look at its answers with capgap evaluate."
        )
    return generations


def _build_requests(model: Any, example: TrainingExample, generation: GenerationKeys, prompt: str) -> list[Any]:
    """lm-eval's requests for one example: one text, or the log-likelihood of each choice."""
    text = _format_teacher_prompt(model, prompt)
    task_format = example.task_format
    if example.choices is not None:
        delimiter = "" if model.prompting.chat_template else task_format.delimiter
        return [_make_lm_request(example, "loglikelihood", text, f"{delimiter}{choice}") for choice in example.choices]
    settings: dict[str, Any] = {
        "until": list(task_format.stop),
        "max_gen_toks": generation.max_tokens or task_format.max_tokens,
        "do_sample": generation.temperature > 0,
    }
    if generation.temperature > 0:
        settings["temperature"] = generation.temperature
    return [_make_lm_request(example, "generate_until", text, settings)]


def _make_lm_request(example: TrainingExample, kind: Any, *arguments: Any) -> Any:
    from lm_eval.api.instance import Instance

    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0, metadata=(example.task, 0, 1))


def _score_confidence(
    model: Any, examples: Sequence[TrainingExample], requests: Sequence[Any], responses: Responses, ledger: Any
) -> dict[TaskItemKey, float]:
    """Mean log-probability of a character of a teacher's own text for each example, nats."""
    text_confidence: dict[TaskItemKey, float] = {}
    to_score: dict[TaskItemKey, Any] = {}
    for example, group, answers in zip(examples, requests, responses, strict=True):
        key = (example.task, example.item)
        text = answers[0].value
        if example.choices is not None:
            likeliest_index = _likeliest_choice(answers)
            text_confidence[key] = answers[likeliest_index].value[0] / max(len(example.choices[likeliest_index]), 1)
        elif text:
            # some tokenizers drop the white space that a text began with
            needs_no_delimiter = model.prompting.chat_template or text[:1].isspace()
            continuation = text if needs_no_delimiter else f"{leading_delimiter(example)}{text}"
            to_score[key] = _make_lm_request(example, "loglikelihood", group[0].args[0], continuation)
        else:
            text_confidence[key] = float("-inf")
    scored = respond(model, list(to_score.values()), ledger)
    for (key, request), (response,) in zip(to_score.items(), scored, strict=True):
        text_confidence[key] = response.value[0] / len(request.args[1])
    return text_confidence


def _likeliest_choice(answers: Sequence[Any]) -> int:
    """Index of the choice with the highest log-likelihood; the first of equals."""
    return max(range(len(answers)), key=lambda index: answers[index].value[0])


def _format_teacher_prompt(model: Any, prompt: str) -> str:
    """The prompt as this teacher is addressed."""
    prompting = model.prompting
    if prompting.chat_template:
        system = [{"role": "system", "content": prompting.system_prompt}] if prompting.system_prompt else []
        text: str = model.lm.apply_chat_template([*system, {"role": "user", "content": prompt}])
        return text
    return f"{prompting.system_prompt or ''}{prompt}"  # as lm-eval joins them


def _usable(examples: Sequence[TrainingExample], responses: Responses, config: DistillConfig) -> TeacherGenerations:
    """The completions that can be trained on, and how many responses were dropped for which reason."""
    pairs: list[tuple[TrainingExample, str]] = []
    correctness_verdicts: list[bool | None] = []
    n_dropped_by_reason: Counter[str] = Counter()
    for example, answers in zip(examples, responses, strict=True):
        completion, is_right = _grade_answer(example, answers, config.text_kind.has_reasoning)
        correctness_verdicts.append(is_right)
        if completion is None:
            n_dropped_by_reason["cut" if answers[0].stop_reason == "limit" else "unparsed"] += 1
        elif config.generation.keep == "correct" and not is_right:
            n_dropped_by_reason["wrong"] += 1
        else:
            pairs.append((example, completion))
    # One that cannot be scored, and nobody can tell how many are right.
    n_right = None if None in correctness_verdicts else correctness_verdicts.count(True)
    counts = (n_dropped_by_reason["unparsed"], n_dropped_by_reason["cut"], n_dropped_by_reason["wrong"])
    return TeacherGenerations(tuple(pairs), len(examples), n_right, *counts)


def _grade_answer(example: TrainingExample, answers: Sequence[Any], keep_steps: bool) -> tuple[str | None, bool | None]:
    """The completion that a response gives (None: cut or unreadable); whether it is right (None: nobody can tell)."""
    if example.choices is not None:
        choice = example.choices[_likeliest_choice(answers)]
        return f"{leading_delimiter(example)}{choice}", choice in (example.targets or (example.target,))
    text: str = answers[0].value
    score, answer = graded(example, text)
    if answer is None or answers[0].stop_reason == "limit":
        return None, False
    is_right = None if score is None else score == 1.0
    if not keep_steps:
        return answer_text(example, text, answer), is_right
    # What a teacher writes may begin with the white space that its prompt left open.
    return (text.rstrip() if text[:1].isspace() else f"{leading_delimiter(example)}{text.rstrip()}"), is_right
