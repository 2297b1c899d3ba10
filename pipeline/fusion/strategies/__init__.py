"""Fusion strategies: one file each; the file's name is the strategy's name in `params.yaml`."""
