"""Extractors (through torch-fidelity's registry), features, distances and metrics."""

from pipeline._torchvision import allow_torchvision

# Before any file of this package imports torch-fidelity, which imports torchvision.
allow_torchvision()
