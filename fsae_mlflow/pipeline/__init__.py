"""All stages from pictures to the feature browser as one command: which they are, and when one need not run again."""
