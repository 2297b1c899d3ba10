"""The fused model as one folder that MLflow loads anywhere: recipe, weights, signature and the code that samples."""
