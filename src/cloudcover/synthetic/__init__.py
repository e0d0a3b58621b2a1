"""A simulated set whose true masks are known."""
