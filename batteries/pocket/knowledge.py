"""Questions over the tables in facts/: capitals, elements, works, dates, science."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from draw import Draft, Draw, table

CAPITALS = ("What is the capital of {}?", "Which city is the capital of {}?", "Name the capital city of {}.")
ELEMENTS = (
    "Which chemical element has atomic number {}?",
    "What is the name of the chemical element with atomic number {}?",
    "Which chemical element has {} protons in the nucleus of its atom?",
)
SYMBOLS = (
    "What is the chemical symbol for {}?",
    "Which symbol stands for {} in the periodic table?",
    "What is the symbol of the chemical element {}?",
)
WORKS = ("Who wrote {}?", "Who is the author of {}?", "By which author is {}?")
DATES = (
    "What is the year in which {}?",
    "Give the year in which {}.",
    "In what year was it that {}?",
)
SCIENCE = {
    "young": ("What is a young {} called?", "What is the name for the young of the {}?"),
    "class": ("What kind of animal is {}?", "In zoology, what kind of animal is {}?"),
    "unit": ("What is the SI unit of {}?", "In which SI unit is {} measured?"),
    "bone": ("What is the medical name of {}?", "Which medical term stands for {}?"),
    "formula": ("What is the chemical formula of {}?", "Which chemical formula stands for {}?"),
    "study": ("What does the field of {} study?", "What is {} the study of?"),
    "like": (
        'Which animal does the adjective "{}" refer to?',
        'The adjective "{}" describes something like which animal?',
    ),
    "planet": ("Which planet is the {} one from the Sun?", "What is the name of the {} planet, counted from the Sun?"),
}
# In free text "What kind of animal is a bat?" has many true answers; among four choices it has one.
CHOOSE_ONLY = ("class",)


@dataclass(frozen=True)
class Fact:
    """One line of a table, with the questions that ask for it."""

    subject: str
    """What must not stand on two sides: a country, an element, an author, an event."""
    band: int
    answer: str
    questions: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    pool: str = ""
    """Facts of one pool lend each other wrong answers."""
    never: tuple[str, ...] = ()
    """Answers of the pool that would be arguable here."""
    group: str = ""
    """Facts that go to one side together, where that is more than the subject."""
    year: bool = False


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(";") if part.strip())


def _asked(templates: Iterable[str], subject: str) -> tuple[str, ...]:
    return tuple(template.format(subject) for template in templates)


def capitals() -> list[Fact]:
    """Country → capital; countries of one region lend each other wrong answers."""
    return [
        Fact(
            f"country: {r['country']}",
            int(r["band"]),
            r["capital"],
            _asked(CAPITALS, r["country"]),
            _listed(r["aliases"]),
            pool=r["region"],
        )
        for r in table("capitals")
    ]


def elements(*, symbols: bool) -> list[Fact]:
    """Element → symbol, or atomic number → element."""
    out = []
    for r in table("elements"):
        subject, band = f"element: {r['element']}", int(r["band"])
        if symbols:
            out.append(Fact(subject, band, r["symbol"], _asked(SYMBOLS, r["element"].lower())))
        else:
            out.append(Fact(subject, band, r["element"], _asked(ELEMENTS, r["number"])))
    return out


def works() -> list[Fact]:
    """Title → author."""
    out = []
    for r in table("works"):
        title = f'{r["kind"]} "{r["title"]}"'
        subject = f"author: {r['author']}"
        out.append(Fact(subject, int(r["band"]), r["author"], _asked(WORKS, title), _listed(r["aliases"])))
    return out


def dates() -> list[Fact]:
    """Event → year."""
    return [
        Fact(f"event: {r['event']}", int(r["band"]), r["year"], _asked(DATES, r["event"]), year=True)
        for r in table("dates")
    ]


def science() -> list[Fact]:
    """Several small relations about animals, units, bones, formulas and planets."""
    return [
        Fact(
            f"{r['relation']}: {r['subject']}",
            int(r["band"]),
            r["answer"],
            _asked(SCIENCE[r["relation"]], r["subject"]),
            _listed(r["aliases"]),
            pool=r["relation"],
            never=_listed(r["never"]),
        )
        for r in table("science")
    ]


def split(
    draw: Draw,
    facts: Sequence[Fact],
    quota: dict[int, int],
    *,
    dev: int,
    kept: Iterable[str] = (),
    held: Iterable[str] = (),
) -> dict[str, str]:
    """Subject → side: ``choose`` or ``generate`` (evaluated so), ``reserved``, ``dev`` or ``train``.

    `quota` says how many facts of each band each evaluated side gets; subjects in `kept` may not be trained on
    (evaluated, or reserved for the mixed tasks), those in `held` not evaluated.
    """
    bands = {fact.subject: fact.band for fact in reversed(facts)}
    pools = {fact.subject: fact.pool for fact in facts}
    kept, held = set(kept), set(held)
    side: dict[str, str] = {}
    for band, n in quota.items():
        free = [s for s in draw.shuffled(sorted(bands)) if bands[s] == band and s not in held]
        both = [s for s in free if pools[s] not in CHOOSE_ONLY]
        written = both[:n]
        chosen = [s for s in free if s not in written][:n]
        if len(chosen) < n:
            raise ValueError(f"band {band} has {len(free)} subjects, {2 * n} are needed")
        side |= dict.fromkeys(written, "generate") | dict.fromkeys(chosen, "choose")
    rest = draw.shuffled([s for s in sorted(bands) if s not in side and s not in kept])
    ready = [s for s in rest if pools[s] not in CHOOSE_ONLY]
    side |= dict.fromkeys(rest, "train") | dict.fromkeys(ready[: 2 * dev], "dev")
    return {s: "reserved" for s in kept if s not in side} | side


def drafts(draw: Draw, facts: Sequence[Fact], *, every_wording: bool, one_each: bool) -> list[Draft]:
    """The questions for these facts; `one_each`: one fact a subject, `every_wording`: all its questions."""
    out: list[Draft] = []
    seen: set[str] = set()
    for fact in draw.shuffled(facts):
        if one_each and fact.subject in seen:
            continue
        seen.add(fact.subject)
        for question in fact.questions if every_wording else [draw.one(fact.questions)]:
            out.append(
                Draft(
                    question,
                    fact.answer,
                    key=f"{fact.subject} | {fact.questions[0]}",
                    cluster=fact.subject,
                    aliases=fact.aliases,
                    scale="year" if fact.year else "number",
                    facts=(fact.subject,),
                    covariates={"familiarity": fact.band},
                )
            )
    return out


def with_wrong(draw: Draw, drafts: Sequence[Draft], facts: Sequence[Fact], others: Sequence[Fact] = ()) -> list[Draft]:
    """The drafts with three wrong answers each, every answer of a pool lent about equally often.

    `others` lend theirs where the pool of `facts` is too small.
    """
    home = {fact.subject: fact for fact in [*others, *facts]}
    used: Counter[str] = Counter()
    pools: defaultdict[str, list[str]] = defaultdict(list)
    for source in (facts, others):
        small = {pool for pool, words in pools.items() if len(words) >= 6}
        for fact in source:
            if fact.pool not in small and fact.answer not in pools[fact.pool]:
                pools[fact.pool].append(fact.answer)
    out = []
    for draft in drafts:
        fact = home[draft.cluster]
        free = [w for w in pools[fact.pool] if w != draft.answer and w not in fact.never and w not in draft.aliases]
        wrong = sorted(draw.shuffled(free), key=lambda word: used[word])[:3]
        used.update(wrong)
        out.append(replace(draft, wrong=tuple(wrong)))
    return out
