"""Palimpsest: language models with a memory that can be read, written, edited and forgotten."""
