"""Renderers of an audit record. They read `records` and nothing else, and need no torch."""
