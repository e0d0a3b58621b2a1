"""Sets in tar archives."""
