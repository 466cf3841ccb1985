"""Renderers of an audit record. They read `audit.records` and nothing else, and need no torch."""
