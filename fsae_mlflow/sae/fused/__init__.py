"""The training step on the CPU that computes active entries only: `step.py` explains it."""
