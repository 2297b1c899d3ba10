"""The clone that a flow works in: git, DVC's cache, who holds it, and what dead flows left there."""
