"""Exact intervals, rates and paired comparisons, from plain arrays. No torch."""
