"""Ways to write an image as parameters that an optimizer can move; one file each, one line in the registry."""
