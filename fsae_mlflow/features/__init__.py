"""What sparse features mean: how often they fire, and on which faces."""
