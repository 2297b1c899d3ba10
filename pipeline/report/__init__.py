"""The HTML report: one file that opens offline. Facts in, text out; `pipeline.stages.register` gathers the facts."""
