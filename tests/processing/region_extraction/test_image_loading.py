import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmpt.processing.region_extraction.image_loading import load_image, upright_rgb

RED, WHITE = (255, 0, 0), (255, 255, 255)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def half_red() -> Image.Image:
    """Return 40 x 20 pixels, the left half red."""
    image = Image.new("RGB", (40, 20), "blue")
    image.paste("red", (0, 0, 20, 20))
    return image


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    return encoded(half_red(), "PNG", exif=exif)


def thirty_two_bits(value: int) -> Image.Image:
    return Image.new("I", (2, 2), value)


def test_exif_orientation_turns_the_image_upright():
    image = load_image(rotated())
    assert image.size == (20, 40)
    assert image.getpixel((10, 5)) == RED  # what was left is at the top
    assert image.getpixel((10, 35)) == (0, 0, 255)
    assert upright_rgb(image).size == (20, 40)  # once


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_does_not_lose_the_image():
    whole = encoded(half_red(), "JPEG", exif=b"Exif\0\0II*\0" + struct.pack("<I", 8) + b"\xff\xff" + b"\x12\x01" * 3)
    assert load_image(whole).size == (40, 20)


def test_sixteen_bit_grey_keeps_its_shades():
    grey = Image.fromarray(np.asarray([[0, 257, 32896, 65535]], dtype=np.uint16))
    image = load_image(encoded(grey, "PNG"))
    assert [image.getpixel((x, 0)) for x in range(4)] == [(0,) * 3, (1,) * 3, (128,) * 3, WHITE]
    assert load_image(b"P5 2 1 65535\n\x00\x00\xff\xff").getpixel((1, 0)) == WHITE


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_lie_over_white(mode):
    image = Image.new(mode, (2, 1), (0,) * len(mode))  # black, but not to be seen
    image.putpixel((1, 0), (0,) * (len(mode) - 1) + (255,))
    loaded = load_image(encoded(image, "PNG"))
    assert [loaded.getpixel((x, 0)) for x in range(2)] == [WHITE, (0, 0, 0)]


def test_transparent_colour_of_a_palette_is_composited_over_white():
    image = Image.new("P", (2, 1), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    loaded = load_image(encoded(image, "PNG", transparency=0))
    assert [loaded.getpixel((x, 0)) for x in range(2)] == [WHITE, (0, 0, 255)]


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for form in ("GIF", "WEBP"):
        image = load_image(encoded(frames[0], form, save_all=True, append_images=frames[1:], lossless=True))
        assert image.getpixel((4, 4)) == RED


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr"])
def test_other_modes_become_rgb(mode):
    form = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    image = load_image(encoded(Image.new("RGB", (8, 8), "white").convert(mode), form))
    assert image.mode == "RGB"
    assert min(image.getpixel((4, 4))) > 250


def test_one_pixel_is_an_image():
    assert load_image(encoded(Image.new("RGB", (1, 1), "red"), "PNG")).getpixel((0, 0)) == RED


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "its format is none of AVIF, BMP, GIF, JPEG"),
        (b"no image", "its format is none of"),
        (encoded(half_red(), "JPEG")[:-20], "image file is truncated"),
        (encoded(half_red(), "PNG")[:-30], "the image cannot be read "),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            "its format is none of",
        ),  # would start a program outside
        (encoded(thirty_two_bits(70000), "TIFF"), "pixels of mode 'I' have no standard range"),
        (encoded(Image.new("F", (2, 2)), "TIFF"), "pixels of mode 'F' have no standard range"),
    ],
    ids=["empty", "text", "truncated jpeg", "truncated png", "postscript", "32 bits", "float"],
)
def test_what_cannot_be_read_says_why(content, message):
    with pytest.raises(ValueError, match=message):
        load_image(content)


def test_decompression_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    content = encoded(half_red(), "PNG")  # 800 pixels: Pillow warns, at 1000 it would refuse
    with (
        pytest.raises(ValueError, match="40 x 20 pixels, expected at most 500"),
        pytest.warns(Image.DecompressionBombWarning),
    ):
        load_image(content)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    with pytest.raises(ValueError, match="decompression bomb"):
        load_image(content)


def test_file_that_cannot_be_opened_says_why(tmp_path: Path):
    for path in (tmp_path, tmp_path / "missing.jpg"):
        with pytest.raises(ValueError, match=r"the image cannot be read .*(Is a directory|No such file)"):
            load_image(path)
