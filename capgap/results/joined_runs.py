"""Several run.json as one: shared facts, remembered roles, and notes on what differs."""

from collections.abc import Mapping, Sequence
from typing import Any

RunFacts = tuple[str, Mapping[str, Any]]
"""The name of a run directory, and what its run.json holds."""

_BEARING_ON_NUMBERS = ("limit", "device", "dtype", "versions", "margin", "conf_level", "declined_roles")
_REPEATED = ("margin", "conf_level", "declined_roles")
"""Settings that an analysis needs one value of: the first run's counts."""


def joined_facts(runs: Sequence[RunFacts]) -> tuple[dict[str, Any], list[str]]:
    """One run.json for several runs, and notes on what differs.

    Returns
    -------
    facts
        What all runs say alike, every model and battery, and under ``runs`` what each says alone.
    notes
        One sentence each: settings that differ, names that mean different things.
    """
    if len(runs) < 2:
        return dict(runs[0][1]) if runs else {}, []
    first = runs[0][1]
    alike = {key: value for key, value in first.items() if all(facts.get(key) == value for _, facts in runs)}
    own = [
        {"name": name, **{key: value for key, value in facts.items() if key not in (*alike, "models", "batteries")}}
        for name, facts in runs
    ]
    differing = [key for key in _BEARING_ON_NUMBERS if any(key in facts for facts in own)]
    notes = []
    if differing:
        words = ", ".join(key.replace("_", " ") for key in differing)
        notes.append(f"the runs differ in {words}: what each says of itself stands under Provenance on the page.")
    joined = {**alike, **{key: first[key] for key in _REPEATED if key in first}, "runs": own}
    for kind, singular, identity in (("models", "model", "fingerprint"), ("batteries", "battery", "hash")):
        joined[kind] = {name: entry for _, facts in reversed(runs) for name, entry in facts[kind].items()}
        notes += [
            f"{singular} {name!r} is not the same in all runs: its {identity} differs."
            for name in joined[kind]
            if len({facts[kind][name].get(identity) for _, facts in runs if name in facts[kind]}) > 1
        ]
    return joined, notes


def joined_roles(runs: Sequence[RunFacts]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The roles of all runs together, and notes on what differs.

    Returns
    -------
    roles
        Every student once, the first teacher, bases and controls of each student.
    notes
        A role that the runs give to different models, and the sentence that says so.
    """
    remembered = [facts.get("roles") or {} for _, facts in runs]
    students = list(dict.fromkeys(name for roles in remembered for name in roles.get("students", ())))
    teachers = list(dict.fromkeys(roles["teacher"] for roles in remembered if roles.get("teacher")))
    merged: dict[str, Any] = {"students": students, "teacher": teachers[0] if teachers else None}
    notes = [("teacher", f"the runs have different teachers; {teachers[0]!r} is taken.")] if len(teachers) > 1 else []
    for role in ("base", "control"):
        pairs = [pair for roles in remembered for pair in (roles.get(role) or {}).items()]
        merged[role] = dict(pairs)
        clashing = dict.fromkeys(student for student, name in pairs if name != merged[role][student])
        notes += [(role, f"the runs give {s!r} another {role} each; {merged[role][s]!r} is taken.") for s in clashing]
    return merged, notes
