"""Optimizer steps: the trainer, and what each step asks for: learning rate, λ, mixtures, new directions."""
