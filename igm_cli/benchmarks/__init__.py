"""Benchmarks: suites, the methods igm is compared with, and what suites share."""
