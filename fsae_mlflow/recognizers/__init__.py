"""Aligned face → template: recognisers behind one interface, by name."""
