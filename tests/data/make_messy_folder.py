"""Makes a flat, unlabelled folder as people have them: images of many formats and modes, some of the files broken.

    python tests/data/make_messy_folder.py OUT --n 400

The images are smooth backgrounds with one coloured shape each, which a small generator can learn.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIDE = 32
SHAPES = ("ellipse", "rectangle", "triangle")


def draw(random: np.random.Generator, side: int = SIDE) -> Image.Image:
    """Return a side×side RGB image: a shape of a random colour, place and kind on a vertical gradient."""
    scale = 4  # drawn larger and reduced, so that edges are smooth
    top, bottom = random.integers(0, 256, (2, 3))
    ramp = np.linspace(0, 1, side * scale)[:, None, None]
    gradient = np.broadcast_to(top * (1 - ramp) + bottom * ramp, (side * scale, side * scale, 3))
    image = Image.fromarray(gradient.astype(np.uint8))
    centre, radius = random.uniform(0.35, 0.65, 2) * side * scale, random.uniform(0.15, 0.3) * side * scale
    left, upper, right, lower = (*(centre - radius), *(centre + radius))
    colour = tuple(int(value) for value in random.integers(0, 256, 3))
    pen = ImageDraw.Draw(image)
    match SHAPES[random.integers(len(SHAPES))]:
        case "ellipse":
            pen.ellipse((left, upper, right, lower), fill=colour)
        case "rectangle":
            pen.rectangle((left, upper, right, lower), fill=colour)
        case _:
            pen.polygon(((left, lower), (right, lower), ((left + right) / 2, upper)), fill=colour)
    return image.resize((side, side), Image.Resampling.BOX)


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    """Return the bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, format=file_format, **options)
    return buffer.getvalue()


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _translucent(image: Image.Image) -> Image.Image:
    alpha = Image.radial_gradient("L").point(lambda value: 255 - value // 2).resize(image.size)
    image.putalpha(alpha)
    return image


def _rotated(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif)


def _sixteen_bits(image: Image.Image) -> bytes:
    return encoded(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257), "PNG")


GOOD: dict[str, Callable[[Image.Image], bytes]] = {
    "rgb.png": lambda image: encoded(image, "PNG"),
    "photo.jpg": lambda image: encoded(image, "JPEG", quality=90),
    "lossy.webp": lambda image: encoded(image, "WEBP", quality=90),
    "plain.bmp": lambda image: encoded(image, "BMP"),
    "palette.gif": lambda image: encoded(image.quantize(), "GIF"),
    "grey.png": lambda image: encoded(image.convert("L"), "PNG"),
    "alpha.png": lambda image: encoded(_translucent(image), "PNG"),
    "grey16.png": _sixteen_bits,
    "print.jpg": lambda image: encoded(image.convert("CMYK"), "JPEG", quality=95),
    "rotated.jpeg": _rotated,
    "wide.png": lambda image: encoded(image.resize((image.width * 3 // 2, image.height)), "PNG"),
}
BROKEN: dict[str, Callable[[Image.Image], bytes]] = {
    "truncated.png": lambda image: half(encoded(image, "PNG")),
    "truncated.jpg": lambda image: encoded(image, "JPEG")[:-100],
    "empty.png": lambda image: b"",
    "notes.txt": lambda image: b"not an image\n",
    "text.jpg": lambda image: b"<html>404 not found</html>\n",
    "damaged.webp": lambda image: encoded(image, "WEBP")[:40],
}


def make_messy_folder(folder: Path, n: int = 400, broken: float = 0.04, duplicates: float = 0.02, seed: int = 0) -> int:
    """Fill `folder` with `n` files, flat and without labels, and return how many of them are broken.

    broken: fraction of the files that cannot be used. duplicates: fraction that repeat an earlier image, stored anew
    in another lossless format. Beside the n files there is a hidden one, which does not count.
    """
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    n_broken, n_duplicates = int(n * broken), int(n * duplicates)
    for number in range(n_broken):
        kind = list(BROKEN)[number % len(BROKEN)]
        (folder / f"{number:05d}-{kind}").write_bytes(BROKEN[kind](draw(random)))
    first: list[Image.Image] = []
    for number in range(n_broken, n - n_duplicates):
        kind = list(GOOD)[number % len(GOOD)]
        image = draw(random)
        if kind == "rgb.png":
            first.append(image)
        (folder / f"{number:05d}-{kind}").write_bytes(GOOD[kind](image))
    for number in range(n - n_duplicates, n):
        copy = first[number % len(first)]
        (folder / f"{number:05d}-copy.webp").write_bytes(encoded(copy, "WEBP", lossless=True))
    (folder / ".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1")
    return n_broken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="OUT")
    parser.add_argument("--n", type=int, default=400, help="number of files")
    parser.add_argument("--broken", type=float, default=0.04, help="fraction of broken ones")
    parser.add_argument("--duplicates", type=float, default=0.02, help="fraction of exact duplicates")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    broken = make_messy_folder(arguments.folder, arguments.n, arguments.broken, arguments.duplicates, arguments.seed)
    print(f"{arguments.n} files in {arguments.folder}, {broken} of them broken")


if __name__ == "__main__":
    main()
