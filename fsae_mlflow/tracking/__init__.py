"""The only room that knows MLflow: command lines, runs, datasets, the registry and the served model."""
