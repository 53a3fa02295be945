"""Benchmarks: grids of tasks, algorithms and seeds, run cell by cell, and reports of them."""
