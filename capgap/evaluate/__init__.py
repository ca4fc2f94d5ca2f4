"""Models × battery → outcomes, kept in a run directory."""

from capgap.evaluate.plan import Plan, cast_roles, default_batteries, parse_devices, parse_shard
from capgap.evaluate.requests import quiet
from capgap.evaluate.run import evaluate, first_line
from capgap.evaluate.run_directory import RunDirectory
from capgap.evaluate.score import outcome_rows

__all__ = [
    "Plan",
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
