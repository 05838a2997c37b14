"""The run of a stage: how it starts and ends, and how what it logs reaches the tracking server."""
