"""Training runs of agents: from a configuration to a folder of results, resumable at any time."""
