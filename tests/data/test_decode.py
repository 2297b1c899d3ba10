"""Every format and mode comes out as the pixels that went in; everything broken comes out as a reason."""

import contextlib
import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from pipeline.data.decode import BadImageError, decode, from_pixels, to_array
from tests.data.make_messy_folder import draw, encoded

LIMIT = 1_000_000


@pytest.fixture
def colour() -> Image.Image:
    return draw(np.random.default_rng(1))


@pytest.fixture
def grey(colour: Image.Image) -> Image.Image:
    return colour.convert("L")


def test_lossless_formats_give_the_same_pixels(colour: Image.Image) -> None:
    few = colour.quantize(64).convert("RGB")
    files = [
        encoded(few, "PNG"),
        encoded(few, "BMP"),
        encoded(few, "WEBP", lossless=True),
        encoded(few.quantize(256), "GIF"),
        encoded(few.quantize(256), "PNG"),
        encoded(few.convert("RGBA"), "PNG"),
    ]
    for data in files:
        decoded = decode(data, LIMIT)
        assert decoded.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(decoded), np.asarray(few))


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP"])
def test_lossy_formats_come_close(colour: Image.Image, file_format: str) -> None:
    decoded = np.asarray(decode(encoded(colour, file_format, quality=95), LIMIT)).astype(int)
    assert np.abs(decoded - np.asarray(colour)).mean() < 6


def test_grey_stays_grey(grey: Image.Image) -> None:
    for data in (encoded(grey, "PNG"), encoded(grey.convert("LA"), "PNG"), encoded(grey, "BMP")):
        decoded = decode(data, LIMIT)
        assert decoded.mode == "L"
        np.testing.assert_array_equal(np.asarray(decoded), np.asarray(grey))


def test_one_bit_images() -> None:
    pixels = np.eye(8, dtype=bool)
    np.testing.assert_array_equal(np.asarray(decode(encoded(Image.fromarray(pixels), "PNG"), LIMIT)), pixels * 255)


def test_alpha_is_laid_on_white() -> None:
    image = Image.new("RGBA", (3, 1))
    for column, pixel in enumerate([(10, 20, 30, 255), (10, 20, 30, 0), (0, 0, 0, 128)]):
        image.putpixel((column, 0), pixel)
    decoded = np.asarray(decode(encoded(image, "PNG"), LIMIT))[0]
    np.testing.assert_array_equal(decoded, [(10, 20, 30), (255, 255, 255), (127, 127, 127)])


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1"])
def test_a_transparent_colour_is_laid_on_white(mode: str) -> None:
    image = Image.new("L", (2, 1), 0)
    image.putpixel((1, 0), 255)
    image = image.convert(mode)
    key = image.getpixel((0, 0))
    decoded = decode(encoded(image, "PNG", transparency=key), LIMIT)
    assert (np.asarray(decoded) == 255).all()


def test_sixteen_bits_are_scaled_not_cut() -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65535]], dtype=np.uint16)
    decoded = np.asarray(decode(encoded(Image.fromarray(values), "PNG"), LIMIT))
    np.testing.assert_array_equal(decoded, [[0, 0, 1, 1, 128, 255]])


def test_a_transparent_sixteen_bit_value_becomes_white() -> None:
    values = np.array([[0, 1000]], dtype=np.uint16)
    data = encoded(Image.fromarray(values), "PNG")
    # Pillow does not write this chunk for 16-bit images, so it is inserted after the header.
    chunk = b"tRNS" + struct.pack(">H", 1000)
    data = data[:33] + struct.pack(">I", 2) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    np.testing.assert_array_equal(np.asarray(decode(data, LIMIT)), [[0, 255]])


def test_cmyk(colour: Image.Image) -> None:
    decoded = np.asarray(decode(encoded(colour.convert("CMYK"), "JPEG", quality=95), LIMIT)).astype(int)
    assert decoded.shape == (32, 32, 3)
    assert np.abs(decoded - np.asarray(colour)).mean() < 6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_exif_orientation_is_applied(orientation: int, file_format: str) -> None:
    # A bright upper left corner on an upright image of 16 rows and 24 columns.
    upright = np.zeros((16, 24), dtype=np.uint8)
    upright[:8, :8] = 255
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(stored), file_format, exif=exif, **({} if file_format == "PNG" else {"quality": 95}))
    decoded = np.asarray(decode(data, LIMIT).convert("L")).astype(int)
    assert decoded.shape == upright.shape
    assert np.abs(decoded - upright).max() < 40


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"Exif\x00\x00garbage", b"Exif\x00\x00II*\x00\xff\xff\xff\xff"])
def test_a_damaged_exif_block_is_passed_over(colour: Image.Image, exif: bytes) -> None:
    assert decode(encoded(colour, "JPEG", exif=exif), LIMIT).size == colour.size


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("L", (8, 8), value) for value in (10, 200)]
    for file_format, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})):
        data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
        assert (np.asarray(decode(data, LIMIT)) == 10).all()


def test_phone_pictures_with_a_second_image_inside(colour: Image.Image) -> None:
    buffer = io.BytesIO()
    colour.save(buffer, format="MPO", save_all=True, append_images=[colour.rotate(90)], quality=95)
    decoded = np.asarray(decode(buffer.getvalue(), LIMIT)).astype(int)
    assert np.abs(decoded - np.asarray(colour)).mean() < 6


def test_every_truncation_is_a_reason_not_a_crash(colour: Image.Image) -> None:
    for file_format in ("PNG", "JPEG", "WEBP", "BMP", "GIF"):
        data = encoded(colour, file_format)
        for length in range(0, len(data) * 3 // 4, 23):
            with pytest.raises(BadImageError, match=r".+"):
                decode(data[:length], LIMIT)


def test_random_damage_never_escapes(colour: Image.Image) -> None:
    random = np.random.default_rng(0)
    for file_format in ("PNG", "JPEG", "WEBP", "BMP", "GIF"):
        data = np.frombuffer(encoded(colour, file_format), dtype=np.uint8)
        for _ in range(60):
            damaged = data.copy()
            places = random.integers(0, len(data), 5)
            damaged[places] = random.integers(0, 256, 5)
            with contextlib.suppress(BadImageError):
                assert decode(damaged.tobytes(), LIMIT).mode in ("L", "RGB")


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises width×height pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\x00" * 100))
        + chunk(b"IEND", b"")
    )


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    with pytest.raises(BadImageError, match=r"50000×50000 pixels, more than data\.max_pixels = 1000000"):
        decode(bomb(50_000, 50_000), LIMIT)


SHORT_OF_MEMORY = """
import io, re, resource
from pathlib import Path
from PIL import Image
from pipeline.data.decode import decode
file = io.BytesIO()
Image.new("RGB", (5000, 5000)).save(file, "PNG")
held = 1024 * int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
resource.setrlimit(resource.RLIMIT_AS, (held + 2**24, held + 2**24))
try:
    decode(file.getvalue(), 10**8)
except Exception as error:
    print(type(error).__name__)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
def test_a_lack_of_memory_is_no_fault_of_the_image() -> None:
    done = subprocess.run([sys.executable, "-c", SHORT_OF_MEMORY], capture_output=True, text=True)
    assert done.stdout == "MemoryError\n", done.stderr


def test_the_limit_is_inclusive(colour: Image.Image) -> None:
    assert decode(encoded(colour, "PNG"), 32 * 32).size == (32, 32)
    with pytest.raises(BadImageError):
        decode(encoded(colour, "PNG"), 32 * 32 - 1)


@pytest.mark.parametrize("file_format", ["TIFF", "PPM", "ICO"])
def test_other_formats_are_refused(colour: Image.Image, file_format: str) -> None:
    with pytest.raises(BadImageError, match="not a readable PNG"):
        decode(encoded(colour, file_format), LIMIT)


def test_raw_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(from_pixels(pixels.tobytes(), pixels.shape)), pixels)
    np.testing.assert_array_equal(np.asarray(from_pixels(pixels[..., 0].tobytes(), (4, 6))), pixels[..., 0])


def test_the_longer_side_is_cropped_on_both_ends() -> None:
    pixels = np.zeros((8, 16), dtype=np.uint8)
    pixels[:, 4:12] = 200
    for image in (Image.fromarray(pixels), Image.fromarray(pixels.T)):
        np.testing.assert_array_equal(to_array(image, 8, 1), np.full((1, 8, 8), 200))


def test_channels(colour: Image.Image, grey: Image.Image) -> None:
    np.testing.assert_array_equal(to_array(colour, 32, 3), np.asarray(colour).transpose(2, 0, 1))
    np.testing.assert_array_equal(to_array(colour, 32, 1)[0], np.asarray(grey))
    np.testing.assert_array_equal(to_array(grey, 32, 3), np.repeat(np.asarray(grey)[None], 3, axis=0))


def test_resizing_does_not_alias() -> None:
    # Columns that alternate average out; taking every fourth would give black or white.
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (128, 64))
    small = to_array(Image.fromarray(stripes), 32, 1)
    assert np.abs(small[0, 4:-4, 4:-4].astype(int) - 127).max() < 8


def test_tiny_and_thin_images() -> None:
    assert to_array(Image.new("RGB", (1, 1), "red"), 8, 3).shape == (3, 8, 8)
    assert to_array(Image.new("L", (1, 500)), 16, 1).shape == (1, 16, 16)
