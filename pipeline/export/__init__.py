"""Generators for inference elsewhere: as ONNX, whole or quantised, and in half precision."""
