"""Training: selection of chips, data loading, and the training run."""
