"""Files become a validated case: tables, labels, the forget set, references, provenance."""
