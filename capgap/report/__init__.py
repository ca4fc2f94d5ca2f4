"""The report: one self-contained page (or Markdown) from outcomes and estimates; no torch, no network, no script."""

from capgap.report.markdown import markdown_report
from capgap.report.render import write_report

__all__ = ["markdown_report", "write_report"]
