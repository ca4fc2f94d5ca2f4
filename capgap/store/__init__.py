"""The run directory: tables by model, `run.json`, roles; no torch."""

from capgap.store.run_directory import RunDirectory

__all__ = ["RunDirectory"]
