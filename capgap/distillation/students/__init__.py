"""Student models: loaded from checkpoints, pruned, built from scratch, wrapped with adapters."""
