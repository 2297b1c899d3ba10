"""Faults injected into runs of the flow at seeded moments: after the next start nothing may tell that they happened."""
