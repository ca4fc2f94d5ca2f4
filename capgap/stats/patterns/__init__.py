"""Failure patterns: groups of items that students answer alike across the grid, found, tested and named."""

from capgap.stats.patterns.discover import MIN_PATTERN_STUDENTS, FailurePatterns, find_patterns
from capgap.stats.patterns.evidence import PatternCountTest, PatternReplication
from capgap.stats.patterns.naming import PatternName, name_patterns

__all__ = [
    "MIN_PATTERN_STUDENTS",
    "PatternCountTest",
    "FailurePatterns",
    "PatternName",
    "PatternReplication",
    "find_patterns",
    "name_patterns",
]
