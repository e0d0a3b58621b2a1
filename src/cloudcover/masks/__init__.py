"""Probabilities and masks, in memory and on disk, and conversions between them. No torch."""
