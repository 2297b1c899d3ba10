"""Chorus: train many image generators, measure each one, fuse them, and tell if that one is better than any."""

__version__ = "0.1.0"
