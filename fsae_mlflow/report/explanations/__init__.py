"""Figures of explanations: one pair, and how fast its similarity falls when features are off."""
