"""Benchmarks: each prints a ratio to a naive reference measured in the same run, and says on what machine."""
