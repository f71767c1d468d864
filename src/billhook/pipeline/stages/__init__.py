"""The steps of a run: each file is one, with a function `run` from the `Work` to plain data for JSON."""
