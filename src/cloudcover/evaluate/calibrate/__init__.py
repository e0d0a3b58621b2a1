"""Weights, temperature, threshold and post-processing of the final models, chosen on held-out scenes."""
