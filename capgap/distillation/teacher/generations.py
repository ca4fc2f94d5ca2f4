"""Teacher generations: a teacher's texts for the prompts, generated through lm-eval and kept in a ledger."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capgap.distillation.config_keys import GenerationKeys
from capgap.distillation.data.selection import TrainingExample
from capgap.distillation.data.targets import answer_text, graded, opening
from capgap.distillation.stages import stage
from capgap.distillation.supervision import TEXTS
from capgap.errors import DistillError
from capgap.events import Listener, ignore

if TYPE_CHECKING:
    from capgap.models import ModelSpec

__all__ = ["TeacherGenerations", "generate_texts"]

ExampleKey = tuple[str, str]
"""Task and item."""


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
    confidence: dict[ExampleKey, float] = field(default_factory=dict)
    """Mean log-probability of a character of the teacher's own text, nats, where it was measured."""
    shares: tuple[float, ...] = ()
    """Of a team: whose texts were chosen."""

    @property
    def accuracy(self) -> float | None:
        """Share of the prompts that the teacher got right."""
        return None if self.n_right is None or not self.n_asked else self.n_right / self.n_asked


def generate_texts(
    spec: "ModelSpec",
    examples: Sequence[TrainingExample],
    texts: str,
    generation: GenerationKeys,
    *,
    ledger: Path,
    device: str | None = None,
    prompt_of: Callable[[TrainingExample], str] = lambda example: example.prompt,
    with_confidence: bool = False,
    on_event: Listener = ignore,
) -> TeacherGenerations:
    """A teacher's completions of all prompts.

    Parameters
    ----------
    spec
        The teacher.
    examples
        The prompts; of choice tasks, the choice that the teacher finds likeliest is its answer.
    texts
        A key of `TEXTS`: those without steps keep the final answer of each text, those with steps the whole text.
    generation
        Limits, temperature, and whether wrong answers are kept.
    ledger
        SQLite file in which responses are looked up and kept.
    device
        Where the teacher runs.
    prompt_of
        The prompt that the teacher is given for an example.
    with_confidence
        Measure how likely it finds its own texts.
    on_event
        Hears of the stage "teacher's texts".

    Raises
    ------
    ModelError
        The teacher cannot be loaded or asked.
    DistillError
        A conversation is given, or nothing that the teacher said can be used.
    """
    from capgap.models import Ledger, load_model, respond

    if any(example.messages is not None for example in examples):
        raise DistillError("messages carry their own answers; a teacher is asked prompts. Give prompt and completion.")
    model = load_model(spec, device=device)
    requests = [_requests(model, example, generation, prompt_of(example)) for example in examples]
    if with_confidence and not model.can_score:
        raise DistillError(f"teacher {model.name}: {model.why_no_scores}, which team.choose: confidence needs.")
    flat = [request for group in requests for request in group]
    with Ledger(ledger) as book, stage(on_event, "teacher's texts", len(flat), "response") as advance:
        answered = iter(respond(model, flat, book, progress=lambda computed, cached: advance(computed + cached)))
        responses = [[next(answered)[0] for _ in group] for group in requests]
        confidence = _confidence(model, examples, requests, responses, book) if with_confidence else {}
    usable = _usable(examples, responses, generation, with_steps=TEXTS[texts].has_steps)
    generations = replace(usable, facts=model.facts, confidence=confidence)
    if not generations.pairs:
        raise DistillError(
            f"teacher {model.name}: none of its {generations.n_asked} texts can be used ({generations.n_cut} cut at "
            f"the limit of tokens, {generations.n_unparsed} without a readable answer, "
            f"{generations.n_wrong_dropped} wrong). "
            "Raise generation.max_tokens, or look at its answers with capgap evaluate."
        )
    return generations


def _requests(model: Any, example: TrainingExample, generation: GenerationKeys, prompt: str) -> list[Any]:
    """lm-eval's requests for one example: one text, or the log-likelihood of each choice."""
    from lm_eval.api.instance import Instance

    context = _context(model, prompt)

    def request(kind: Any, arguments: tuple[Any, ...]) -> Any:
        return Instance(request_type=kind, doc={}, arguments=arguments, idx=0, metadata=(example.task, 0, 1))

    if example.choices is not None:
        delimiter = "" if model.prompting.chat_template else example.task_format.delimiter
        return [request("loglikelihood", (context, f"{delimiter}{choice}")) for choice in example.choices]
    settings: dict[str, Any] = {
        "until": list(example.task_format.stop),
        "max_gen_toks": generation.max_tokens or example.task_format.max_tokens,
        "do_sample": generation.temperature > 0,
    }
    if generation.temperature > 0:
        settings["temperature"] = generation.temperature
    return [request("generate_until", (context, settings))]


def _confidence(
    model: Any,
    examples: Sequence[TrainingExample],
    requests: Sequence[Any],
    responses: Sequence[Sequence[Any]],
    book: Any,
) -> dict[ExampleKey, float]:
    """Mean log-probability of a character of a teacher's own text for each example, nats."""
    from lm_eval.api.instance import Instance

    from capgap.models import respond

    confidence: dict[ExampleKey, float] = {}
    to_score: dict[ExampleKey, Any] = {}
    for example, group, group_responses in zip(examples, requests, responses, strict=True):
        key = (example.task, example.item)
        if example.choices is not None:
            best = _likeliest(group_responses)
            confidence[key] = group_responses[best].value[0] / max(len(example.choices[best]), 1)
        elif group_responses[0].value:
            text = group_responses[0].value
            # some tokenizers drop the white space that a text began with
            is_whole = model.prompting.chat_template or text[:1].isspace()
            arguments = (group[0].args[0], text if is_whole else f"{opening(example)}{text}")
            to_score[key] = Instance("loglikelihood", {}, arguments, 0, (example.task, 0, 1))
        else:
            confidence[key] = float("-inf")
    scored = respond(model, list(to_score.values()), book)
    for (key, request), (response,) in zip(to_score.items(), scored, strict=True):
        confidence[key] = response.value[0] / len(request.args[1])
    return confidence


def _likeliest(responses: Sequence[Any]) -> int:
    """Index of the choice with the highest log-likelihood; the first of equals."""
    return max(range(len(responses)), key=lambda index: responses[index].value[0])


def _context(model: Any, prompt: str) -> str:
    """The prompt as this teacher is addressed."""
    prompting = model.prompting
    if prompting.chat_template:
        system = [{"role": "system", "content": prompting.system_prompt}] if prompting.system_prompt else []
        text: str = model.lm.apply_chat_template([*system, {"role": "user", "content": prompt}])
        return text
    return f"{prompting.system_prompt or ''}{prompt}"  # as lm-eval joins them


def _usable(
    examples: Sequence[TrainingExample],
    responses: Sequence[Sequence[Any]],
    generation: GenerationKeys,
    *,
    with_steps: bool,
) -> TeacherGenerations:
    """The completions that can be trained on, and how many responses were dropped for which reason."""
    pairs: list[tuple[TrainingExample, str]] = []
    n_right: int | None = 0
    n_unparsed = n_cut = n_wrong_dropped = 0
    for example, group_responses in zip(examples, responses, strict=True):
        completion, is_right, is_cut = _completion(example, group_responses, with_steps=with_steps)
        if is_right is None and completion is not None:
            n_right = None  # one that cannot be scored, and nobody can tell how many are right
        elif is_right and n_right is not None:
            n_right += 1
        if is_cut:
            n_cut += 1
        elif completion is None:
            n_unparsed += 1
        elif generation.keep == "correct" and not is_right:
            n_wrong_dropped += 1
        else:
            pairs.append((example, completion))
    return TeacherGenerations(tuple(pairs), len(examples), n_right, n_unparsed, n_cut, n_wrong_dropped)


def _completion(
    example: TrainingExample, responses: Sequence[Any], *, with_steps: bool
) -> tuple[str | None, bool | None, bool]:
    """The completion that a response gives (None: unreadable), whether it is right, whether it was cut."""
    if example.choices is not None:
        choice = example.choices[_likeliest(responses)]
        return f"{opening(example)}{choice}", choice in (example.targets or (example.target,)), False
    response = responses[0]
    text: str = response.value
    if response.stop_reason == "length":
        return None, False, True
    score, answer = graded(example, text)
    if answer is None:
        return None, False, False
    is_right = None if score is None else score == 1.0
    if not with_steps:
        return answer_text(example, text, answer), is_right, False
    # What a teacher writes may begin with the white space that its prompt left open.
    return (text.rstrip() if text[:1].isspace() else f"{opening(example)}{text.rstrip()}"), is_right, False
