"""Mislabelled poison: training samples with wrong labels, as they happen or are planted."""
