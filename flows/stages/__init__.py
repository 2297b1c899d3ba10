"""A stage's command from its start to its end: processes, attempts, and where it runs."""
