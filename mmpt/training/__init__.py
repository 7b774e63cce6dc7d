"""Training runs: trainers, checkpoints, data sources and run folders."""
