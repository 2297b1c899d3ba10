"""Who looks on at a run: the terminal, Prefect's page and its events."""
