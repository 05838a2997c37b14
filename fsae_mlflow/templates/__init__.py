"""The template set on disk: its columns, reading and writing."""
