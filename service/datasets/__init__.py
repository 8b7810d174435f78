"""`/datasets` and their pairs."""
