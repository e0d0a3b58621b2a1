"""Losses for one logit per pixel."""
