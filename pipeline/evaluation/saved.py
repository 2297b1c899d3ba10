"""Our own extractors on disk, read with torch alone: what a packaged model needs of them."""

from pathlib import Path

from pipeline.errors import ChorusError
from pipeline.evaluation.networks import NetworkConfig, Standardised, build
from pipeline.weights import load_state, read_content


def load_network(folder: Path) -> tuple[NetworkConfig, Standardised]:
    """Load the network of `extractors/NAME` in evaluation mode on the CPU.

    Raises `ChorusError` where files are missing, damaged or newer than this code, and for a published extractor, whose
    weights are not there.
    """
    content = read_content(folder)
    if "published" in content:
        raise ChorusError(f"{folder} holds no weights: '{content['published']}' is a published extractor")
    config = NetworkConfig(**content["network"])
    network = build(config)
    load_state(folder / "model.safetensors", network)
    return config, network.eval().requires_grad_(False)
