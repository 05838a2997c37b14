"""Stages that are runs of their own under another run: a pipeline's and a sweep's."""
