"""Whose faces are confused: error rates by attribute, and the features that wrong decisions have in common."""
