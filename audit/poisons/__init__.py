"""The poisons, one folder each: what plants it, its evidence, its probe, and what that means."""
