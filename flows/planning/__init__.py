"""What a run has to do and in which order: DVC's graph, the plan, what is urgent, what is tried again."""
