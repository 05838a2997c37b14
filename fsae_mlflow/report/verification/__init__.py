"""Figures of verification: accuracy and ROC, error rates of groups, and what leaving features out changes."""
