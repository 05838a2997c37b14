"""The machine: its devices, memory and processes, and the ranks of one training."""
