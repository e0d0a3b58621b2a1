"""The web page for judging labels."""
