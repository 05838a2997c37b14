"""What is known of each face, with which features are compared: attributes, measured properties, another recognizer."""
