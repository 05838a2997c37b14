"""Ways to write an image as parameters that an optimiser can move; one file each, one line in the registry."""
