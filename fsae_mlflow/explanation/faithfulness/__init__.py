"""Whether explanations are faithful, measured: the order of features, and the maps on the faces."""
