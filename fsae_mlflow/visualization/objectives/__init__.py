"""What an image is optimized for: one file each, and one line in registry.py.

To add one, write NAME.py with a subclass of `Objective` (base.py); gate.py is the shortest example. Add the line
`"NAME": f"{HERE}.NAME:CLASS",` to registry.py: NAME is then a choice of `objective=`. tests/visualization tests every
name in the registry: each image's value depends on its own template and target only.
"""
