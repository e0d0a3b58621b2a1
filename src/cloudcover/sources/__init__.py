"""Sources of chips."""
