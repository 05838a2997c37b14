"""Pairs of faces in, verification accuracy out."""
