"""Word problems: each wording with its numbers and its steps."""

from dataclasses import dataclass

from draw import NAMES, Draft, Draw, table


@dataclass(frozen=True)
class Story:
    """A wording, the ranges of its numbers, what follows from them, and the steps to the answer."""

    name: str
    text: str
    ranges: dict[str, tuple[int, int]]
    steps: tuple[str, ...]
    """``x op y`` each; r1, r2 … are the results of the steps before."""
    derived: tuple[tuple[str, str], ...] = ()
    """Numbers of the text that are made of others, so that divisions come out even."""


def _parts(cell: str) -> list[str]:
    return [part.strip() for part in cell.split(";") if part.strip()]


def _ranges(cell: str) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for part in _parts(cell):
        name, bounds = part.split()
        low, high = bounds.split("-")
        found[name] = int(low), int(high)
    return found


def _story(row: dict[str, str]) -> Story:
    derived = [tuple(part.split(" = ")) for part in _parts(row["derived"])]
    return Story(
        row["name"], row["text"], _ranges(row["ranges"]), tuple(_parts(row["steps"])), tuple((n, s) for n, s in derived)
    )


STORIES = tuple(_story(row) for row in table("stories"))


def _result(step: str, values: dict[str, int]) -> tuple[int, str]:
    """The result of ``x op y`` and its line in the rationale."""
    left, operator, right = step.split()
    x, y = values[left], values[right]
    if operator == "/" and x % y:
        raise ValueError(f"{step} does not come out even")
    result = {"+": x + y, "-": x - y, "*": x * y, "/": x // max(y, 1)}[operator]
    return result, f"{x} {operator} {y} = {result}."


def _told(draw: Draw, story: Story) -> Draft | None:
    values = {name: draw.between(*bounds) for name, bounds in story.ranges.items()}
    for name, step in story.derived:
        values[name] = _result(step, values)[0]
    lines = []
    for number, step in enumerate(story.steps, start=1):
        values[f"r{number}"], line = _result(step, values)
        lines.append(line)
    # From 4 on three wrong numbers fit below the answer; no number in a text is 0, 1 or negative.
    if min(values.values()) < 2 or values[f"r{len(story.steps)}"] < 4:
        return None
    people = dict(zip("ABCD", draw.some(NAMES, 4), strict=True))
    before = tuple(
        values[f"r{n}"] for n in range(1, len(story.steps)) if values[f"r{n}"] != values[f"r{len(story.steps)}"]
    )
    return Draft(
        story.text.format(**people, **values),
        str(values[f"r{len(story.steps)}"]),
        key=" ".join([story.name, *(str(values[n]) for n in sorted(values) if f"{{{n}}}" in story.text)]),
        cluster=f"story: {story.name}",
        near=before[-1:],
        covariates={"steps": len(story.steps)},
        rationale=" ".join(lines),
    )


def word_problem(draw: Draw, index: int) -> Draft:
    """The index-th word problem: the wordings take turns."""
    story = STORIES[index % len(STORIES)]
    while True:
        draft = _told(draw, story)
        if draft is not None:
            return draft
