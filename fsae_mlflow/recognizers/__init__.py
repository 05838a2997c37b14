"""Aligned face → template: recognizers behind one interface, by name."""
