"""Models × battery → outcomes, kept in a run directory."""

from capgap.evaluation.plan import EvaluationPlan, cast_roles, default_batteries, parse_devices, parse_shard
from capgap.evaluation.requests import quiet
from capgap.evaluation.run import evaluate, first_line
from capgap.evaluation.scoring import outcome_rows
from capgap.store.run_directory import RunDirectory

__all__ = [
    "EvaluationPlan",
    "RunDirectory",
    "cast_roles",
    "default_batteries",
    "evaluate",
    "first_line",
    "outcome_rows",
    "parse_devices",
    "parse_shard",
    "quiet",
]
