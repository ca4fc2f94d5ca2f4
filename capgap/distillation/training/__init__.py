"""The training loop: step plan, micro-batches, objectives, Trainer integration."""
