"""Targeted poison: test samples that are to be misclassified."""
