"""The choice of weights, temperature, threshold and post-processing of the final models, on held-out scenes."""
