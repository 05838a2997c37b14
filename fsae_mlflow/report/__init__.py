"""From results to figures and tables."""
