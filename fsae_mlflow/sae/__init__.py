"""Template → sparse features: the autoencoders, their training and their files."""
