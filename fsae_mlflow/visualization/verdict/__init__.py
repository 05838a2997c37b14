"""Whether to believe an image: what is measured on the saved file, beside real faces and controls."""
