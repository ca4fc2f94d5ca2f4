"""Failure patterns: groups of items that students answer alike across the grid, found, tested and named."""

from capgap.stats.patterns.discover import FailurePatterns, find_patterns
from capgap.stats.patterns.naming import PatternName, label_patterns

__all__ = ["FailurePatterns", "PatternName", "find_patterns", "label_patterns"]
