"""A generator as an ONNX graph: made, run, checked against torch, and quantised.

Needs the packages of the optional dependencies `export`. Everything here computes on the CPU.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ChorusError
from pipeline.randomness import generator

OPSET = 20
TOLERANCE = 1e-4  # between torch and ONNX Runtime, on images in [-1, 1]
TRACED = 4  # images of the batch that is traced: neither 0 nor 1, which torch.export takes for constants
CHECKED = (1, 7)  # sizes of the batches that are compared
CALIBRATION = 8  # batches that set the ranges of a quantised network
BATCH = 32


def inputs(network: nn.Module, count: int, seed: int, purpose: str) -> tuple[Tensor, ...]:
    """Return seeded latents, count×latent, and for a conditional generator labels (int64) drawn with its shares."""
    latent, shares = _facts(network)
    random = generator(seed, "export", purpose, count)
    z = torch.randn(count, latent, generator=random)
    return (z, torch.multinomial(torch.tensor(shares), count, True, generator=random)) if shares else (z,)


def to_onnx(network: nn.Module) -> bytes:
    """Return a generator in evaluation mode on the CPU as an ONNX model of opset 20.

    Its inputs are `z` (float B×latent) and, where the generator is conditional, `y` (int64 B), with any B; its output
    is `images` (float B×C×H×W in [-1, 1]). Raises `ChorusError` where the generator has no such graph, and where ONNX
    Runtime does not give torch's images to within 1e-4.
    """
    example = inputs(network, TRACED, 0, "trace")
    names = ["z", "y"][: len(example)]
    with tempfile.TemporaryDirectory(prefix="chorus-") as folder:
        path = Path(folder) / "generator.onnx"
        try:
            program: Any = torch.onnx.export(
                network,
                example,
                dynamo=True,
                dynamic_shapes=tuple({0: torch.export.Dim("batch")} for _ in example),
                opset_version=OPSET,
                input_names=names,
                output_names=["images"],
                verbose=False,
            )
            program.save(path, external_data=False)
            content = path.read_bytes()
            exported = OnnxGenerator(content, network)
        except ImportError as error:
            raise ChorusError(
                f"{error}; ONNX needs more packages: pip install -c constraints.txt -e '.[export]' in the clone"
            ) from None
        except Exception as error:  # the exporter raises several kinds for what it cannot express
            raise ChorusError(f"this generator has no ONNX graph: {error}; export it as fp16") from None
    if (difference := largest_difference(network, exported)) > TOLERANCE:
        raise ChorusError(f"the ONNX graph's images differ from torch's by up to {difference:.1e}; export it as fp16")
    return content


class OnnxGenerator(nn.Module):
    """An ONNX model with the contract of a generator, run by ONNX Runtime.

    content: the model. original: the generator that it was made of, for its latent's length, classes and passes.
    threads: of ONNX Runtime.
    """

    def __init__(self, content: bytes, original: nn.Module, threads: int = 1) -> None:
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.latent, self.class_shares = _facts(original)
        self.passes = getattr(original, "passes", 1.0)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×latent, and B labels where there are classes, to B×C×H×W in [-1, 1]."""
        given = {"z": z.numpy()} if y is None else {"z": z.numpy(), "y": y.numpy()}
        return torch.from_numpy(self.session.run(None, given)[0])


@torch.inference_mode()
def largest_difference(network: nn.Module, other: nn.Module) -> float:
    """Return by how much two generators' images differ at most, on batches of several sizes."""
    pairs = [(network(*given), other(*given)) for given in (inputs(network, count, 0, "check") for count in CHECKED)]
    return max(float((one - two).abs().max()) for one, two in pairs)


def quantise(content: bytes, network: nn.Module) -> bytes:
    """Return an ONNX model with weights and activations of 8 bits, calibrated with seeded latents of `network`.

    Static quantisation (Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-
    Arithmetic-Only Inference"), weights by channel; operators that have no integer form stay in fp32.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Latents(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[dict[str, Any]] = (
                dict(zip("zy", (part.numpy() for part in inputs(network, BATCH, 0, f"calibrate{i}")), strict=False))
                for i in range(CALIBRATION)
            )

        def get_next(self) -> dict[str, Any] | None:
            return next(self.batches, None)

    with tempfile.TemporaryDirectory(prefix="chorus-") as folder:
        whole, ready, small = (Path(folder) / f"{name}.onnx" for name in ("whole", "ready", "small"))
        whole.write_bytes(content)
        quant_pre_process(whole, ready, skip_symbolic_shape=True)
        quantize_static(
            ready,
            small,
            Latents(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return small.read_bytes()


def _facts(network: nn.Module) -> tuple[int, tuple[float, ...]]:
    """Return the length of a generator's latent and its class shares."""
    made: Any = network
    return int(made.latent), tuple(made.class_shares)
