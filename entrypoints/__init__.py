"""The command lines of the project's MLflow entry points; each runs as `python -m entrypoints.NAME`."""
