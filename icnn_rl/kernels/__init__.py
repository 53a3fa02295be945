"""Compiled numerics, private to the core: what solvers and sets call sample by sample."""
