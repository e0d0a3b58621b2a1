"""Training: which chips a model learns from, how they reach it, and the run itself."""
