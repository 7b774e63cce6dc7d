"""Decode image files to upright 8-bit RGB images."""

from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mmpt.configuration.errors import MmptValueError

# Pillow can open more formats, but for some, such as PostScript, it runs an external program.
FORMATS = {
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg", ".jfif", ".mpo"),
    "JPEG2000": (".jp2",),
    "PNG": (".png",),
    "PPM": (".pgm", ".ppm", ".pnm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
_ORIENTATION = 0x0112


def load_image(file: str | Path | bytes | BinaryIO) -> Image.Image:
    """Decode an image, or the first frame of an animation, and apply `upright_rgb`.

    Raises:
        ValueError: if the file cannot be read, is not an image, is truncated, or has more pixels than Pillow's limit
            against decompression bombs (`PIL.Image.MAX_IMAGE_PIXELS`).
    """
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]  # a custom build of Pillow may lack some
    try:
        with Image.open(BytesIO(file) if isinstance(file, bytes) else file, formats=formats) as image:
            limit = Image.MAX_IMAGE_PIXELS  # Pillow itself raises only above twice this number
            if limit is not None and image.width * image.height > limit:
                raise MmptValueError(
                    f"{image.width} x {image.height} pixels, expected at most {limit:,}; make it smaller, "
                    "or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
                )
            return upright_rgb(image)
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise MmptValueError(f"the image cannot be read: its format is none of {', '.join(formats)}") from None
    except Exception as error:  # decoders raise OSError, SyntaxError, EOFError, struct.error and others on damage
        raise MmptValueError(f"the image cannot be read ({type(error).__name__}): {error}") from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """Rotate an image upright by its EXIF orientation and convert it to RGB.

    Transparent images are composited over white. 16-bit grey values are divided by 257, so 65535 becomes 255.

    Raises:
        ValueError: if the pixels are 32-bit integers or floats, which have no standard range.
    """
    image.load()
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # with a damaged EXIF block the pixels may still be intact
        orientation = 1
    if orientation != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode[0] in "IF":
        return _eight_bits(image).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image)
    # Mode "I" has 32 bits, but Pillow also uses it for 16-bit PGM.
    if image.mode == "F" or pixels.min() < 0 or pixels.max() > 65535:
        raise MmptValueError(
            f"pixels of mode {image.mode!r} have no standard range, expected 8 or 16 bits; convert it first"
        )
    return Image.fromarray(np.round(pixels / 257).astype(np.uint8))
