"""Token canaries: random strings in training texts."""
