"""The only package that imports MLflow: command lines, runs, datasets, the model registry and the served model."""
