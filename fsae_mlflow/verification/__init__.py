"""From pairs of faces to verification accuracy."""
