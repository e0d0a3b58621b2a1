"""Readers for images in all supported formats, which return bands as digital numbers. No torch."""
