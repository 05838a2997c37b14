"""The command lines of the project's MLflow entry points; run from the project's root as `python -m entrypoints.NAME`."""
