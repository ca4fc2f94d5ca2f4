"""Several run.json as one: shared facts, remembered roles, and notes on what differs."""

from collections.abc import Mapping, Sequence
from typing import Any

NamedRunFacts = tuple[str, Mapping[str, Any]]
"""The name of a run directory, and what its run.json holds."""

REMEMBERED_SETTINGS = ("margin", "conf_level", "declined_roles")
"""Settings of a comparison, beside its roles, that a run directory remembers."""


def join_run_facts(runs: Sequence[NamedRunFacts]) -> tuple[dict[str, Any], list[str]]:
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
    by_run = [
        {"name": name, **{key: value for key, value in facts.items() if key not in (*alike, "models", "batteries")}}
        for name, facts in runs
    ]
    settings = ("limit", "device", "dtype", "versions", *REMEMBERED_SETTINGS)
    differing_settings = [key for key in settings if any(key in facts for facts in by_run)]
    notes = []
    if differing_settings:
        words = ", ".join(key.replace("_", " ") for key in differing_settings)
        notes.append(
            f"the runs differ in {words} (see Provenance on the page); where one must count, the first's does."
        )
    merged_facts = {**alike, **{key: first[key] for key in REMEMBERED_SETTINGS if key in first}, "runs": by_run}
    for kind, singular, identity in (("models", "model", "fingerprint"), ("batteries", "battery", "hash")):
        merged_facts[kind] = {name: entry for _, facts in reversed(runs) for name, entry in facts[kind].items()}
        notes += [
            f"{singular} {name!r} is not the same in all runs: its {identity} differs."
            for name in merged_facts[kind]
            if len({facts[kind][name].get(identity) for _, facts in runs if name in facts[kind]}) > 1
        ]
    return merged_facts, notes


def join_run_roles(runs: Sequence[NamedRunFacts]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The roles of all runs together, and notes on what differs.

    Returns
    -------
    roles
        Every student once, the first teacher, bases and controls of each student.
    notes
        A role that the runs give to different models, and the sentence that says so.
    """
    roles_of_runs = [facts.get("roles") or {} for _, facts in runs]
    students = list(dict.fromkeys(name for roles in roles_of_runs for name in roles.get("students", ())))
    teachers = list(dict.fromkeys(roles["teacher"] for roles in roles_of_runs if roles.get("teacher")))
    merged: dict[str, Any] = {"students": students, "teacher": teachers[0] if teachers else None}
    notes = [("teacher", f"the runs have different teachers; {teachers[0]!r} is taken.")] if len(teachers) > 1 else []
    for role in ("base", "control"):
        pairs = [pair for roles in roles_of_runs for pair in (roles.get(role) or {}).items()]
        merged[role] = dict(pairs)
        clashing = dict.fromkeys(student for student, name in pairs if name != merged[role][student])
        notes += [(role, f"the runs give {s!r} another {role} each; {merged[role][s]!r} is taken.") for s in clashing]
    return merged, notes
