"""Evidence from declared labels: by the author of a battery, or by the catalogue of lm-eval's task families.

A declaration is strong evidence, not the truth. It names what a task mainly asks for, and exceptions among its items
are expected: the catalogue's own reasons say *most* and *mainly*. The log-odds stand for how often a careful second
reader would agree about an item, the standard deviations for how far that share may be off for a task that nobody
has counted.

================  ========  ====  ==================================================================================
who declared      log-odds  sd    why
================  ========  ====  ==================================================================================
the battery, a    ± 3.9     0.6   The author saw the items: 98 % of them as declared; at worst, two sd away, 94 %.
file's own line
the catalogue     ± 2.9     0.8   Written from descriptions of whole families: 95 %; at worst, two sd away, 79 %.
either, `mixed`   0         0.5   Something to know and something to conclude: the middle, 27 % to 73 % at two sd.
================  ========  ====  ==================================================================================

The numbers were set by hand, not fitted: there is no corpus in which declared labels and independent ones meet. Experts
who label items one by one agree with a good classifier in about four of five (arXiv 2505.11462), which bounds from
below what a declaration is worth.
"""

from capgap.battery.catalogue import known_label
from capgap.classification.evidence import Evidence, EvidenceReason

_BATTERY_LOGIT_AND_SD = (3.9, 0.6)
_CATALOGUE_LOGIT_AND_SD = (2.9, 0.8)
_MIXED_LABEL_LOGIT_SD = 0.5
_CAPABILITY_LOGIT_SIGN = {"knowledge": -1.0, "mixed": 0.0, "reasoning": 1.0}


def weigh_label(capability: str | None, task: str | None, *, labeller: str | None = None) -> Evidence | None:
    """The evidence of a declaration on an item, or on all items of a task.

    Parameters
    ----------
    capability
        ``knowledge``, ``reasoning``, ``mixed``, or None where nothing is declared.
    task
        The task's name, for the catalogue; None where it has none.
    labeller
        Who declared `capability`. None for a task of lm-eval, where a battery takes over the catalogue's labels: the
        catalogue's word, reason and doubt, where it says the same.

    Returns
    -------
    Evidence or None
        None where neither the item nor the catalogue says anything.
    """
    task_label = known_label(task) if task else None
    if task_label is not None and (capability is None or (labeller is None and capability == task_label.capability)):
        logit, sd = _label_logit_and_sd(task_label.capability, _CATALOGUE_LOGIT_AND_SD)
        reason_and_source = f"{task_label.reason} Source: {task_label.source}"
        words = f"the catalogue of lm-eval's tasks calls {task} {task_label.capability}: {reason_and_source}"
    elif capability is not None:
        logit, sd = _label_logit_and_sd(capability, _BATTERY_LOGIT_AND_SD)
        words = f"{labeller or 'its battery'} declares it {capability}"
    else:
        return None
    return Evidence("declared", logit, sd, (EvidenceReason(words, logit),), shared=1.0)


def find_shared_declaration(evidence: list[Evidence | None]) -> Evidence | None:
    """The one declaration that all items of a task share; None where they differ or one has none."""
    declaration = evidence[0] if evidence else None
    return declaration if declaration is not None and all(other == declaration for other in evidence) else None


def _label_logit_and_sd(capability: str, declared_logit_and_sd: tuple[float, float]) -> tuple[float, float]:
    logit, sd = declared_logit_and_sd
    """Log-odds and standard deviation of a capability declared with that strength."""
    return (0.0, _MIXED_LABEL_LOGIT_SD) if capability == "mixed" else (_CAPABILITY_LOGIT_SIGN[capability] * logit, sd)
