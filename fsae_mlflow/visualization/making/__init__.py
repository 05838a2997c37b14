"""How images are made: gradient ascent on many at once, what it may change, and how they are kept."""
