"""Gaussian canaries: keyed noise on training samples."""
