"""Probabilities and masks, in memory and on disk, and how one becomes the other. No torch."""
