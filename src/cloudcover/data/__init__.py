"""Chips and their tables: reading, checking, packing, splitting. No torch."""
