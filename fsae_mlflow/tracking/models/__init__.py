"""An SAE as MLflow has it: the LoggedModel with its metrics, the served model, the card, and the champion rule."""
