"""What `icnn-rl fit` runs: one file an experiment."""
