"""When each feature fires: how often, how strongly, and on which faces."""
