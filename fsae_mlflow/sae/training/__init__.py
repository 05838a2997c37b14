"""From a template set to a finished SAE: data, schedule, trainer, checkpoints."""
