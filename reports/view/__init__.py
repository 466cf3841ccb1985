"""Records in words: all rounding is done here."""
