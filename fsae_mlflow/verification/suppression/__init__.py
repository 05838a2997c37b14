"""What is left of an attribute in templates that should not tell it, and what that costs."""
