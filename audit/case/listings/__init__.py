"""Tables of pictures as people keep them, one file a kind, each to a `Listing`."""
