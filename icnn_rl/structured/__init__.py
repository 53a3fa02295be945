"""Structured prediction: learning energies that are minimised over a set."""
