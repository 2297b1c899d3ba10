"""Benchmarks are scripts that import each other by name, from the folder that they lie in."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
