"""Studies: the trials of searches, kept where they survive whatever happens to a search."""
