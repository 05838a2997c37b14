"""A feature in, images that fire it out."""
