"""Ways to write images as parameters that an optimizer changes: one file each, and one line in registry.py.

To add one:

1. Write NAME.py with a subclass of `Parametrization` (base.py); pixels.py is the shortest example. The constructor
   takes a list of torch generators, one per image, and the keyword `size` in pixels (by default an aligned face's). It
   passes both to the base class and makes `nn.Parameter`s. `forward()` returns the images, shape (images, 3, size,
   size), RGB in 0…1. base.py says how a class asks for what faces look like, for images to begin with, and how it sets
   its own number of steps and its penalty.
2. Add the line `"NAME": f"{HERE}.NAME:CLASS",` to registry.py. NAME is then a choice of the visualize entry point:
   `python -m entrypoints.visualize --parametrization NAME`.
3. Run `python -m pytest tests/visualization`, which tests every name in the registry for these rules:
   - All random numbers of image i come from generators[i]; `normal` (base.py) draws them so.
   - Image i depends on its own parameters only. The first dimension of every parameter lists the images, or all values
     of the first image, then all of the second, and so on. Nothing is normalized across images.
   - `forward()` is differentiable; keep images in 0…1 with a sigmoid, since a clamp has no gradient outside.
   - Constant tensors are buffers (`register_buffer`); they move to the device with the parameters.
"""
