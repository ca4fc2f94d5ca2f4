"""Labels in sentences: every task's label, counts, and how labels meet what is declared."""

from collections.abc import Iterator, Sequence

from capgap.classification.labelling import LabelledItems, UnlabelledItem
from capgap.classification.pooling import MIDDLE

__all__ = ["label_summary"]

_MOST_TASKS = 40


def label_summary(items: Sequence[UnlabelledItem], labelled: LabelledItems) -> Iterator[str]:
    """One sentence each: the label of a task with its heaviest reason, counts, and how labels meet declarations.

    Parameters
    ----------
    items
        What was labelled.
    labelled
        Its labels, in the same order.
    """
    labels = labelled.labels
    for name, label in list(labelled.tasks.items())[:_MOST_TASKS]:
        interval = f"p {label.p:.2f} [{label.conf_low:.2f}, {label.conf_high:.2f}]"
        heaviest = next((reason.words for reason in label.reasons if reason.weight * label.logit > 0), None)
        yield f"{name[:60]}: {label.capability}, {interval}" + (f"; {heaviest}" if heaviest else "")
    if len(labelled.tasks) > _MOST_TASKS:
        yield f"and {len(labelled.tasks) - _MOST_TASKS:,} more tasks"
    counts = labels["capability"].value_counts()
    parts = ", ".join(f"{int(counts.get(word, 0)):,} {word}" for word in ("knowledge", "reasoning", "mixed"))
    low, high = MIDDLE
    n_middle = int(labels["p_reasoning"].between(low, high).sum())
    sources = ", ".join(sorted({kind for source in labels["source"] for kind in source.split(", ")}))
    yield f"{len(labels):,} items: {parts}; {n_middle:,} with p from {low:.2f} to {high:.2f}. Evidence: {sources}."
    declared = [(item, got) for item, got in zip(items, labels["capability"], strict=True) if item.capability]
    if "declared" in sources:
        others = [(item, got) for item, got in declared if item.capability != got]
        for item, got in others[:1]:
            yield (
                f"{len(others):,} items are labelled otherwise than declared, the first is {item.item[:60]} of "
                f"{item.task[:60]}: declared {item.capability}, labelled {got}."
            )
    elif declared:
        sure = [item.capability == got for item, got in declared if item.capability != "mixed"]
        yield f"{sum(sure):,} of {len(sure):,} items that are declared knowledge or reasoning are labelled so."
