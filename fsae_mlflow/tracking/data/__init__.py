"""What a run reads and what it leaves for others: inputs, outputs, and the datasets that MLflow lists."""
