"""Run directories: ``run.json``, the tables, outcomes in parts by model and battery, roles; no torch."""

from capgap.store.outcome_parts import has_outcomes, read_outcomes
from capgap.store.run_directory import RunDirectory

__all__ = ["RunDirectory", "has_outcomes", "read_outcomes"]
