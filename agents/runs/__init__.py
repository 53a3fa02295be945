"""Training runs: from a configuration to a folder of results, stopped and resumed at will."""
