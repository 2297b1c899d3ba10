"""What is written down of a run: the journal, the JSON log, the MLflow run, the summary."""
