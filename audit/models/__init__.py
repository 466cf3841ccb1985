"""Checkpoints, and the adapter through which everything else sees a model."""
