"""A residual network from images to images, the later parts of a cascade."""

from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from pipeline.layers.convolutional import Down, Up, initialise
from pipeline.models._base import ModelConfig

BLOCKS = 2
SLOPE = 0.2


class Residual(nn.Module):
    """h + conv(lrelu(conv(lrelu(h)))), both 3×3 (He et al. 2016, "Identity Mappings in Deep Residual Networks")."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        """Map B×channels×S×S to the same shape."""
        return maps + self.second(leaky_relu(self.first(leaky_relu(maps, SLOPE)), SLOPE))


class Refiner(nn.Module):
    """Corrects images: x + f(x), cut off at -1 and 1; f works at half the side and starts as zero.

    So an untrained refiner hands its images through. It has no normalisation: a correction of each image alone. A
    conditional one adds an embedding of the class to f's first map.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.down = Down(config.channels, width, bias=True)
        self.blocks = nn.Sequential(*(Residual(width) for _ in range(BLOCKS)))
        self.up = Up(width, config.channels, bias=True)
        initialise(self)
        for module in self.blocks.modules():
            if isinstance(module, nn.Conv2d):
                # Without normalisation, N(0, 0.02²) would let hardly anything through.
                nn.init.kaiming_normal_(module.weight, SLOPE)
        nn.init.zeros_(self.up.weight)
        self.classes = nn.Embedding(config.classes, width) if config.classes else None
        if self.classes is not None:
            nn.init.zeros_(self.classes.weight)

    def forward(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×C×H×W in [-1, 1] to the same shape and range."""
        maps = self.down(images)
        if self.classes is not None and y is not None:
            maps = maps + self.classes(y)[:, :, None, None]
        correction = self.up(leaky_relu(self.blocks(maps), SLOPE))
        return (images + correction).clamp(-1, 1)
