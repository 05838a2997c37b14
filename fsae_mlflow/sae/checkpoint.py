"""Kept for models registered by version 0.1, whose served_model.py imports `load_sae` from here."""

from fsae_mlflow.sae.saved import load_sae

__all__ = ["load_sae"]
