"""Objectives: what one training step does, one file each; an architecture names the one that trains it."""
