"""Evidence in the place of the shipped text model, for tests that are about something else."""

from collections.abc import Sequence

from capgap.classification import Evidence, EvidenceReason, ItemText


def text_evidence(questions: Sequence[ItemText]) -> list[Evidence]:
    """Digits speak for reasoning, everything else a little for knowledge; fixed doubt."""
    found = []
    for question in questions:
        logit = 1.5 if any(c.isdigit() for c in question.text) else -1.0
        found.append(Evidence("text", logit, 1.2, (EvidenceReason("digits" if logit > 0 else "no digits", logit),)))
    return found
