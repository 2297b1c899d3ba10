"""Runs that nobody starts by hand: the Prefect server, deployments and triggers."""
