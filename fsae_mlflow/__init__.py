"""What a face template encodes: sparse autoencoders on the templates of any face recognizer, as an MLflow Project."""

__version__ = "0.2.0"
