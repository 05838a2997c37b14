"""The feature browser: one HTML page that shows every feature, without a server and without a network."""
