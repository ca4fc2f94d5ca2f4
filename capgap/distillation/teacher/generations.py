"""What the teacher says to the prompts, asked through lm-eval and kept in a ledger as it comes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capgap.distillation.config_keys import GenerationKeys, Texts
from capgap.distillation.data.selection import TrainingExample
from capgap.distillation.data.targets import answer_text, graded, opening
from capgap.errors import DistillError

if TYPE_CHECKING:
    from capgap.models import ModelSpec

__all__ = ["TeacherGenerations", "generate_texts"]


@dataclass(frozen=True)
class TeacherGenerations:
    """The teacher's texts as examples, and what became of the others."""

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
    sure: dict[tuple[str, str], float] = field(default_factory=dict)
    """Task and item → mean log-probability of a character of the teacher's own text, nats, where it was asked."""
    shares: tuple[float, ...] = ()
    """Of a team: whose texts were chosen."""

    @property
    def accuracy(self) -> float | None:
        """Share of the prompts that the teacher got right."""
        return None if self.n_right is None or not self.n_asked else self.n_right / self.n_asked


def generate_texts(
    spec: "ModelSpec",
    examples: Sequence[TrainingExample],
    supervision: Texts,
    generation: GenerationKeys,
    *,
    ledger: Path,
    device: str | None = None,
    address: Callable[[TrainingExample], str] = lambda example: example.prompt,
    sure: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> TeacherGenerations:
    """Ask a teacher every prompt.

    Parameters
    ----------
    spec
        The teacher.
    examples
        The prompts; of choice tasks, the choice that the teacher finds likeliest is its answer.
    supervision
        ``answers`` keeps the final answer of each text, ``traces`` the whole text.
    generation
        Limits, temperature, and whether wrong answers are kept.
    ledger
        SQLite file in which responses are looked up and kept.
    device
        Where the teacher runs.
    address
        The prompt that the teacher is asked for an example.
    sure
        Ask how likely it finds its own texts.
    progress
        Told how many responses were computed and how many found.

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
    requests = [_requests(model, example, generation, address(example)) for example in examples]
    if sure and not model.can_score:
        raise DistillError(f"teacher {model.name}: {model.no_scores_reason}, which team.choose: confidence needs.")
    with Ledger(ledger) as book:
        flat = respond(model, [one for group in requests for one in group], book, progress=progress)
        responses = iter(flat)
        heard = [[next(responses)[0] for _ in group] for group in requests]
        likely = _sureness(model, examples, requests, heard, book) if sure else {}
    said = replace(_sorted_out(examples, heard, supervision, generation, model.facts), sure=likely)
    if not said.pairs:
        raise DistillError(
            f"teacher {model.name}: none of its {said.n_asked} texts can be used ({said.n_cut} cut at the limit of "
            f"tokens, {said.n_unparsed} without a readable answer, {said.n_wrong_dropped} wrong). "
            "Raise generation.max_tokens, or look at its answers with capgap evaluate."
        )
    return said


def _requests(model: Any, example: TrainingExample, generation: GenerationKeys, prompt: str) -> list[Any]:
    """lm-eval's requests for one example: one text, or the log-likelihood of each choice."""
    from lm_eval.api.instance import Instance

    context = _context(model, prompt)

    def request(kind: Any, arguments: tuple[Any, ...]) -> Any:
        return Instance(request_type=kind, doc={}, arguments=arguments, idx=0, metadata=(example.task, 0, 1))

    if example.choices is not None:
        delimiter = "" if model.prompting.chat_template else example.asking.delimiter
        return [request("loglikelihood", (context, f"{delimiter}{choice}")) for choice in example.choices]
    settings: dict[str, Any] = {
        "until": list(example.asking.stop),
        "max_gen_toks": generation.max_tokens or example.asking.max_tokens,
        "do_sample": generation.temperature > 0,
    }
    if generation.temperature > 0:
        settings["temperature"] = generation.temperature
    return [request("generate_until", (context, settings))]


def _sureness(
    model: Any, examples: Sequence[TrainingExample], requests: Sequence[Any], heard: Sequence[Sequence[Any]], book: Any
) -> dict[tuple[str, str], float]:
    """Mean log-probability of a character of what a teacher said to each example."""
    from lm_eval.api.instance import Instance

    from capgap.models import respond

    sure: dict[tuple[str, str], float] = {}
    asked: dict[tuple[str, str], Any] = {}
    for example, group, responses in zip(examples, requests, heard, strict=True):
        key = (example.task, example.item)
        if example.choices is not None:
            best = max(range(len(responses)), key=lambda index: responses[index].value[0])
            sure[key] = responses[best].value[0] / max(len(example.choices[best]), 1)
        elif responses[0].value:
            text = responses[0].value
            # some tokenizers drop the white space that a text began with
            bare = model.prompting.chat_template or text[:1].isspace()
            told = (group[0].args[0], text if bare else f"{opening(example)}{text}")
            asked[key] = Instance("loglikelihood", {}, told, 0, (example.task, 0, 1))
        else:
            sure[key] = float("-inf")
    for (key, one), (response,) in zip(asked.items(), respond(model, list(asked.values()), book), strict=True):
        sure[key] = response.value[0] / len(one.args[1])
    return sure


def _context(model: Any, prompt: str) -> str:
    """The prompt as this teacher is addressed."""
    prompting = model.prompting
    if prompting.chat_template:
        system = [{"role": "system", "content": prompting.system_prompt}] if prompting.system_prompt else []
        text: str = model.lm.apply_chat_template([*system, {"role": "user", "content": prompt}])
        return text
    return f"{prompting.system_prompt or ''}{prompt}"  # as lm-eval joins them


def _sorted_out(
    examples: Sequence[TrainingExample],
    heard: Sequence[Sequence[Any]],
    supervision: Texts,
    generation: GenerationKeys,
    facts: dict[str, Any],
) -> TeacherGenerations:
    pairs: list[tuple[TrainingExample, str]] = []
    said = TeacherGenerations((), len(examples), 0, 0, 0, 0, facts)
    for example, responses in zip(examples, heard, strict=True):
        completion, right, cut = _heard(example, responses, supervision)
        if right is None and completion is not None:
            said = replace(said, n_right=None)
        elif right and said.n_right is not None:
            said = replace(said, n_right=said.n_right + 1)
        if cut:
            said = replace(said, n_cut=said.n_cut + 1)
        elif completion is None:
            said = replace(said, n_unparsed=said.n_unparsed + 1)
        elif generation.keep == "correct" and not right:
            said = replace(said, n_wrong_dropped=said.n_wrong_dropped + 1)
        else:
            pairs.append((example, completion))
    return replace(said, pairs=tuple(pairs))


def _heard(
    example: TrainingExample, responses: Sequence[Any], supervision: Texts
) -> tuple[str | None, bool | None, bool]:
    """The completion that a response gives (None: unreadable), whether it is right, whether it was cut."""
    if example.choices is not None:
        best = max(range(len(responses)), key=lambda index: responses[index].value[0])
        choice = example.choices[best]
        return f"{opening(example)}{choice}", choice in (example.targets or (example.target,)), False
    response = responses[0]
    text: str = response.value
    if response.stop_reason == "length":
        return None, False, True
    score, answer = graded(example, text)
    if answer is None:
        return None, False, False
    right = None if score is None else score == 1.0
    if supervision == "answers":
        return answer_text(example, text, answer), right, False
    # What a teacher writes may begin with the white space that its prompt left open.
    return (text.rstrip() if text[:1].isspace() else f"{opening(example)}{text.rstrip()}"), right, False
