"""Findings and verdict from measurements and tolerances. No torch."""
