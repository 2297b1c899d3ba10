"""Samplers, selection and fusion: tensors in, tensors out."""
