"""Architectures: one file each; the file's name is the architecture's name in `params.yaml`.

Files whose names begin with an underscore are parts that architectures share.
"""
