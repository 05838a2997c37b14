"""Kinds of sparse autoencoder, one file each: what an activation is, where it fires, what else the loss has."""
