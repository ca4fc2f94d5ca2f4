"""Knowledge or reasoning: what an item asks of a model, with a probability and reasons."""

from capgap.classify.evidence import Evidence, Question, Reason

__all__ = ["Evidence", "Question", "Reason"]
