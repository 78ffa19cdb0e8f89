"""Benchmarks: the suites, the baselines, and code shared by suites."""
