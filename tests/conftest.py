"""What holds for all tests."""

import os

# Each of dvc's commands would start a process of its own that reports to its makers.
os.environ["DVC_NO_ANALYTICS"] = "1"

pytest_plugins = ["tests.stub_checkout"]
