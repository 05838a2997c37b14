"""The stage from pictures to a template set."""
