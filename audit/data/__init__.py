"""Sample tables, forget sets and canaries."""
