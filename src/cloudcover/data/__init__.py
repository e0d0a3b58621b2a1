"""Chips and the tables about them: reading, checking, packing, splitting. No torch."""
