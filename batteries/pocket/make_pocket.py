"""Writes every data file of the pocket battery: ``python batteries/pocket/make_pocket.py [--seed N] [--out DIR]``.

Facts stand in facts/*.tsv; everything else is drawn. No item that is evaluated is a solved example or may be trained
on, and no fact that an evaluated item needs is asked or used in either.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import knowledge
import mixed
import reasoning
import stories
from draw import Draft, Draw, wrong_numbers
from knowledge import Fact

SEED = 20261
N_EVAL, N_DEV, N_TRAIN = 24, 5, 144
N_PLACED = 32
"""Countries whose places are evaluated; those of the others may be trained on."""
N_SOLVED = 7
"""Countries that only the solved examples of the two hops use."""
FORMATS = ("choose", "generate")
PARTS = ("eval", "dev", "train")
Rows = dict[tuple[str, str], list[dict[str, object]]]
"""(part, task) → rows."""

REASONING: dict[str, Callable[[Draw, int], Draft]] = {
    "arithmetic": reasoning.arithmetic,
    "swaps": reasoning.swaps,
    "booleans": reasoning.booleans,
    "word_problems": stories.word_problem,
    "ordering": reasoning.ordering,
    "hops": reasoning.hops,
}


@dataclass
class Writer:
    """Turns drafts into rows: ids, choices in balanced order, targets."""

    seed: int
    rows: Rows = field(default_factory=dict)

    def add(self, task: str, part: str, drafts: Sequence[Draft]) -> None:
        """The drafts as the rows of one part of a task, in another order."""
        draw = Draw(self.seed, "rows", task, part)
        drafts = draw.shuffled(drafts)
        n_choices = 2 if drafts[0].answer in ("True", "False") else 4
        places, ranks = draw.even(range(n_choices), len(drafts)), draw.even(range(4), len(drafts))
        self.rows[part, task] = [
            self._row(draw, f"{task}-{part}-{number:03d}", draft, places[number], ranks[number])
            for number, draft in enumerate(drafts)
        ]

    def _row(self, draw: Draw, name: str, draft: Draft, place: int, rank: int) -> dict[str, object]:
        row: dict[str, object] = {"id": name, "question": draft.question, "answer": draft.answer}
        if "_choose-" in name:
            wrong = list(draft.wrong) or wrong_numbers(draw, draft, rank)
            if len(wrong) == 1:
                row["choices"] = ["True", "False"]
            else:
                wrong = draw.shuffled(wrong)
                row["choices"] = [*wrong[:place], draft.answer, *wrong[place:]]
        else:
            row["targets"] = [draft.answer, *draft.aliases]
            row["chance"] = draft.chance
        row["cluster"] = draft.cluster or name
        row |= draft.covariates
        if draft.rationale:
            # Where no `extract` reads the answer out of the steps, a trace is the steps and then the answer.
            stated = f" {draft.answer}." if "targets" in row else ""
            row["rationale"] = f"{draft.rationale} The answer is{stated}"
        if draft.facts:
            row["facts"] = list(draft.facts)
        return row


def _fact_family(
    writer: Writer,
    name: str,
    facts: dict[str, list[Fact]],
    quota: dict[int, int],
    *,
    kept: Iterable[str] = (),
    held: Iterable[str] = (),
) -> dict[str, str]:
    """Both tasks of a family of facts; `facts` by format. Gives the side of each subject."""
    draw = Draw(writer.seed, "split", name)
    side = knowledge.split(draw, facts["choose"], quota, dev=N_DEV, kept=kept, held=held)
    evaluated = {s for s, word in side.items() if word in FORMATS}
    free = [s for s in draw.shuffled(sorted(side)) if side[s] == "train"]
    dev = [s for s in draw.shuffled(sorted(side)) if side[s] == "dev"]
    for turn, form in enumerate(FORMATS):
        parts = {
            "eval": {s for s in side if side[s] == form},
            "dev": set(dev[turn::2]),
            "train": {s for s in free[turn::2] if form == "choose" or not s.startswith(knowledge.CHOOSE_ONLY)},
        }
        for part, subjects in parts.items():
            draw = Draw(writer.seed, name, form, part)
            own = [fact for fact in facts[form] if fact.subject in subjects]
            whole = part == "train"
            drafts = knowledge.drafts(draw, own, every_wording=whole, one_each=not whole)
            if form == "choose" and not own[0].year:
                near = evaluated if part == "eval" else set(side) - evaluated
                lend = [fact for fact in facts[form] if fact.subject in near]
                far = [fact for fact in facts[form] if fact.subject not in near]
                drafts = knowledge.with_wrong(draw, drafts, lend, far)
            writer.add(f"{name}_{form}", part, drafts)
    return side


def _knowledge(writer: Writer) -> dict[str, str]:
    """The ten knowledge tasks; gives the side of each country, element and event."""
    capitals = knowledge.capitals()
    placed = mixed.places_of({fact.subject for fact in capitals})
    shuffled = Draw(writer.seed, "countries").shuffled(sorted(placed))
    kept, held = shuffled[:N_PLACED], shuffled[N_PLACED:]
    even, rare = {1: 8, 2: 8, 3: 8}, {1: 9, 2: 9, 3: 6}
    sides = _fact_family(writer, "capitals", dict.fromkeys(FORMATS, capitals), even, kept=kept, held=held)
    symbols = {"choose": knowledge.elements(symbols=False), "generate": knowledge.elements(symbols=True)}
    sides |= _fact_family(writer, "elements", symbols, even)
    _fact_family(writer, "authors", dict.fromkeys(FORMATS, knowledge.works()), even)
    sides |= _fact_family(writer, "dates", dict.fromkeys(FORMATS, knowledge.dates()), rare)
    _fact_family(writer, "science", dict.fromkeys(FORMATS, knowledge.science()), rare)
    return sides


def _mixed(writer: Writer, sides: dict[str, str]) -> None:
    """The four mixed tasks, over facts of the same side."""
    of_part = {
        part: {s for s, w in sides.items() if (w if w in ("dev", "train") else "eval") == part} for part in PARTS
    }
    capitals = knowledge.capitals()
    free = Draw(writer.seed, "two hops").shuffled(sorted(mixed.places_of(of_part["dev"] | of_part["train"])))
    solved, rest = set(free[:N_SOLVED]), set(free[N_SOLVED:])
    for part, countries, most in (("eval", of_part["eval"], 3), ("dev", solved, 2), ("train", rest, 9)):
        draw = Draw(writer.seed, "two hops", part)
        drafts = mixed.two_hops(draw, countries, most=most, every_wording=part == "train")
        halves = [drafts[0::2], drafts[1::2]]
        lend = [fact for fact in capitals if (fact.subject in of_part["eval"]) == (part == "eval")]
        n = {"eval": N_EVAL, "dev": N_DEV, "train": N_TRAIN}[part]
        writer.add("two_hops_choose", part, knowledge.with_wrong(draw, halves[0], lend)[:n])
        writer.add("two_hops_generate", part, halves[1][:n])
    for part, n, times in (("eval", 12, 1), ("dev", 3, 1), ("train", 99, 4)):
        draw = Draw(writer.seed, "sums", part)
        subjects = [draw.shuffled([s for s in sorted(of_part[part]) if s.startswith(k)]) for k in ("element", "event")]
        for turn, form in enumerate(FORMATS):
            drafts = [d for group in subjects for d in mixed.fact_sums(draw, group[turn::2][:n], times=times)]
            drafts = list({draft.key: draft for draft in drafts}.values())
            writer.add(f"fact_sums_{form}", part, drafts[: N_DEV if part == "dev" else None])


def _reasoning(writer: Writer) -> None:
    """The twelve reasoning tasks; no question is drawn twice."""
    sizes = {"eval": N_EVAL, "dev": N_DEV, "train": N_TRAIN}
    for name, generator in REASONING.items():
        seen: set[str] = set()
        for part, n in sizes.items():
            for form in FORMATS:
                draw = Draw(writer.seed, name, part, form)
                drafts: list[Draft] = []
                while len(drafts) < n:
                    draft = generator(draw, len(drafts))
                    if draft.key not in seen:
                        seen.add(draft.key)
                        drafts.append(draft)
                writer.add(f"{name}_{form}", part, drafts)


def make(seed: int = SEED) -> Rows:
    """Every row of every part of every task."""
    writer = Writer(seed)
    sides = _knowledge(writer)
    _reasoning(writer)
    _mixed(writer, sides)
    return writer.rows


def write(rows: Rows, folder: Path) -> None:
    """One JSONL file for each part of each task: PART/TASK.jsonl."""
    for (part, task), lines in rows.items():
        path = folder / part / f"{task}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lines)
        path.write_bytes(text.encode("utf-8"))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    rows = make(arguments.seed)
    write(rows, arguments.out)
    for part in PARTS:
        print(part, sum(len(lines) for (p, _), lines in rows.items() if p == part))


if __name__ == "__main__":
    main()
