"""The template set on disk: columns, reading, writing."""
