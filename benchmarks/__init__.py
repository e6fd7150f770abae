"""Measurements, `python -m benchmarks.NAME`: beside the package, not part of it."""
