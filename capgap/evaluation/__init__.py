"""Models × batteries → outcomes, kept in a run directory (`capgap.store`)."""

from capgap.evaluation.plan import EvaluationPlan, cast_roles, default_batteries, parse_devices, parse_shard
from capgap.evaluation.requests import quiet
from capgap.evaluation.run import evaluate

__all__ = ["EvaluationPlan", "cast_roles", "default_batteries", "evaluate", "parse_devices", "parse_shard", "quiet"]
