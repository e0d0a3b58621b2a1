"""A simulated data set with known true masks."""
