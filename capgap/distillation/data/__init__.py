"""Training examples: read, selected, kept apart from evaluation items, encoded as tokens."""
