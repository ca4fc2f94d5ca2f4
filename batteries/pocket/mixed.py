"""Questions that need facts and a step: the capital of the country of a place, arithmetic on what must be known."""

from collections.abc import Collection, Sequence

from draw import Draft, Draw, table

HOPS = (
    "What is the capital of the country where {} is found?",
    "What is the capital of the country to which {} belongs?",
    "Name the capital of the country in which {} lies.",
)


def two_hops(draw: Draw, countries: Collection[str], *, most: int, every_wording: bool) -> list[Draft]:
    """Place → country → capital, for places of these countries (``country: X``), at most `most` places a country."""
    capitals = {f"country: {row['country']}": row for row in table("capitals")}
    seen: dict[str, int] = {}
    out = []
    for row in draw.shuffled(table("places")):
        subject = f"country: {row['country']}"
        if subject not in countries or seen.get(subject, 0) >= most:
            continue
        seen[subject] = seen.get(subject, 0) + 1
        fact = capitals[subject]
        aliases = tuple(part.strip() for part in fact["aliases"].split(";") if part.strip())
        known = f"{row['place'][0].upper()}{row['place'][1:]} is in {row['country']}."
        for wording in HOPS if every_wording else [draw.one(HOPS)]:
            out.append(
                Draft(
                    wording.format(row["place"]),
                    fact["capital"],
                    key=f"place: {row['place']}",
                    cluster=subject,
                    aliases=aliases,
                    facts=(subject, f"place: {row['place']}"),
                    covariates={"steps": 2, "familiarity": int(fact["band"])},
                    rationale=f"{known} The capital of {row['country']} is {fact['capital']}.",
                )
            )
    return out


def places_of(countries: Collection[str]) -> set[str]:
    """Those of the countries that some place belongs to."""
    return {f"country: {row['country']}" for row in table("places")} & set(countries)


def fact_sums(draw: Draw, subjects: Sequence[str], *, times: int = 1) -> list[Draft]:
    """Arithmetic on atomic numbers and years, for these elements and events, in turns of one and two operations."""
    elements = {f"element: {row['element']}": row for row in table("elements")}
    events = {f"event: {row['event']}": row for row in table("dates")}
    out = []
    for turn, subject in enumerate([s for _ in range(times) for s in subjects]):
        if subject in elements:
            draft = _atomic(draw, subject, elements[subject], turn % 2)
        else:
            draft = _years(draw, subject, events[subject], turn % 2)
        out.append(draft)
    return out


def _atomic(draw: Draw, subject: str, row: dict[str, str], extra: int) -> Draft:
    name, number = row["element"].lower(), int(row["number"])
    known = f"The atomic number of {name} is {number}."
    add = draw.between(6, 25)
    less = draw.between(2, min(9, add - 3))
    total = number + add
    if extra:
        text = f"Add {add} to the atomic number of {name}, then subtract {less}. What number do you get?"
        answer, lines = total - less, f"{number} + {add} = {total}. {total} - {less} = {total - less}."
    elif number > 14 and draw.below(2):
        text = f"What number do you get when you subtract {less} from the atomic number of {name}?"
        answer, lines = number - less, f"{number} - {less} = {number - less}."
    else:
        text = f"What is {add} plus the atomic number of {name}?"
        answer, lines = total, f"{number} + {add} = {total}."
    return _sum(subject, text, answer, f"{known} {lines}", row, extra, near=number)


def _years(draw: Draw, subject: str, row: dict[str, str], extra: int) -> Draft:
    year, event = int(row["year"]), row["event"]
    known = f"The year in which {event} is {year}."
    after = draw.between(4, min(60, 2020 - year))
    less = draw.one([n for n in range(2, 31) if n != after])
    then = year + after
    if extra:
        text = f"Take the year in which {event}, add {after}, then subtract {less}. What number do you get?"
        answer, lines = then - less, f"{year} + {after} = {then}. {then} - {less} = {then - less}."
    elif draw.below(2):
        text = f"In the year {then}, how many years had passed since the year in which {event}?"
        answer, lines = after, f"{then} - {year} = {after}."
    else:
        text = f"Which year was {after} years after the year in which {event}?"
        answer, lines = then, f"{year} + {after} = {then}."
    return _sum(subject, text, answer, f"{known} {lines}", row, extra, near=None)


def _sum(
    subject: str, text: str, answer: int, rationale: str, row: dict[str, str], extra: int, near: int | None
) -> Draft:
    return Draft(
        text,
        str(answer),
        key=f"sum: {text}",
        cluster=subject,
        scale="year" if answer > 1000 else "number",
        near=() if near is None or near == answer else (near,),
        facts=(subject,),
        covariates={"steps": 2 + extra, "familiarity": int(row["band"])},
        rationale=rationale,
    )
