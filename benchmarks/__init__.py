"""Benchmarks: ratios between two ways of doing the same thing, measured in one run on one machine."""
