"""Ways to choose what is evaluated next. One file is one searcher."""
