"""The process that a stage runs in: MLflow's settings, signals, and whose runs it left behind."""
