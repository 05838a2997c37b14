"""From a template set to a saved sparse autoencoder."""
