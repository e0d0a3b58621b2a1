"""Where chips come from."""
