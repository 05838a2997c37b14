"""Why two faces match: the similarity of decoded templates, split into the features that make it."""
