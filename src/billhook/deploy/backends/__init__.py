"""Runtimes: one file, one `Backend`; the file's name is the name."""
