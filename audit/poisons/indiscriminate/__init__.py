"""Indiscriminate poison: training samples that cost accuracy."""
