"""Warm starts outside of training: which weights a source holds now, and that fact in `params.yaml`.

Nothing here reaches the content of a stage's output: stages take weights by their hash.
"""
