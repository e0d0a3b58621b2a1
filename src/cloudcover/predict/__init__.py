"""Prediction: probabilities of chips by a model or an ensemble, and masks on disk."""
