"""From encoded bytes to pixels: one canonical image whatever the file's format, mode and orientation."""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
GREY = ("1", "L", "LA", "La")
ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImageError(Exception):
    """An image that cannot be used; the message is the reason, for the quarantine list."""


def decode(data: bytes, max_pixels: int) -> Image.Image:
    """Decode an image file into mode `L` (grey) or `RGB`, 8 bits, upright, without transparency.

    Takes PNG, JPEG, WebP, BMP and GIF (of animations the first frame). Transparent parts are laid on white, 16-bit
    values scaled to 8 bits, the EXIF orientation is applied, colour profiles are not. Raises `BadImageError` for what
    is unreadable, truncated, or larger than `max_pixels`; the size is checked before any pixel is decoded. A lack of
    memory is raised as it is: it says nothing of the image.
    """
    # The limit is ours; Pillow's own would refuse images that `data.max_pixels` allows.
    Image.MAX_IMAGE_PIXELS = None
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise BadImageError(f"{width}×{height} pixels, more than data.max_pixels = {max_pixels}")
            image.load()
            return _upright(_eight_bits(image), _orientation(image))
    except (BadImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise BadImageError("not a readable PNG, JPEG, WebP, BMP or GIF file") from None
    except Exception as error:  # Pillow's decoders raise whatever their parsers run into
        raise BadImageError(f"cannot be decoded: {str(error) or type(error).__name__}") from None


def from_pixels(data: bytes, shape: tuple[int, ...]) -> Image.Image:
    """Return raw uint8 pixels of H×W or H×W×3 as an image of mode `L` or `RGB`."""
    return Image.fromarray(np.frombuffer(data, dtype=np.uint8).reshape(shape))


def to_array(image: Image.Image, size: int, channels: int) -> np.ndarray:
    """Return the central square of an image as uint8 channels×size×size.

    The longer side is cropped on both ends alike, colour becomes luma (ITU-R 601) or grey three equal channels, and
    the square is resized by Pillow's bicubic filter, whose support grows with the reduction and so does not alias
    (Parmar, Zhang and Zhu 2022, "On Aliased Resizing and Surprising Subtleties in GAN Evaluation").
    """
    side = min(image.size)
    left, top = ((extent - side) // 2 for extent in image.size)
    if image.size != (side, side):
        image = image.crop((left, top, left + side, top + side))
    image = in_mode(image, "L" if channels == 1 else "RGB")
    if side != size:
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """Return the image converted to `mode`, or itself, where Pillow would copy an image that may be large."""
    return image if image.mode == mode else image.convert(mode)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return a loaded image as `L` or `RGB`, transparency laid on white."""
    if image.mode.startswith("I"):
        return _from_sixteen_bits(image)
    grey = image.mode in GREY
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(in_mode(image, "RGBA"))
        image = white
    return in_mode(image, "L" if grey else "RGB")


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    """Scale grey 0..65535 to 0..255; the value that a PNG declares transparent becomes white."""
    scale = (np.arange(65536) + 128) // 257
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        scale[transparent] = 255
    return in_mode(image, "I").point(scale.tolist(), "L")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) where there is none or the block is damaged."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # a damaged EXIF block says nothing about the pixels
        return 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image
