"""Run directories: ``run.json``, the tables, outcomes in parts by model and battery, roles; no torch."""

from capgap.store.outcome_parts import has_outcomes, numeric_or_text, read_outcomes, unified_covariates
from capgap.store.run_directory import RunDirectory

__all__ = ["RunDirectory", "has_outcomes", "numeric_or_text", "read_outcomes", "unified_covariates"]
