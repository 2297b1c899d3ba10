"""Slots on GPUs and cores."""
