"""Work on a Ray cluster: cells of a benchmark, episodes of an evaluation, environments."""
