"""The one training loop, what it may spend, and the passes over data."""
