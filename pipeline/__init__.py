"""Chorus: train many image generators, measure each one, fuse the best into one better than any of them."""

__version__ = "0.1.0"
