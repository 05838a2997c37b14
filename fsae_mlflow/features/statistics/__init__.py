"""What the activations of a feature have to do with properties, attributes and people, with tests that count people."""
