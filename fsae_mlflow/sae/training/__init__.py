"""From a template set to a finished SAE: data, first weights, steps, checkpoints."""
