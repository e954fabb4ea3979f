"""Drawn digits: ten classes of 32x32 colour images, generated so that nothing is downloaded.

Each image is one digit on a cluttered background, rotated, shifted and noisy.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

CLASSES = 10
SIZE = 32
FONT_SIZES = (19, 28)
MAX_ANGLE = 22.0
MAX_SHIFT = 4.0
NOISE = 12.0


def draw_digits(per_class: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw `per_class` images of each digit.

    returns  images (10 · per_class, 32, 32, 3) uint8, in class order; labels (10 · per_class,)
    """
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(CLASSES, dtype=np.int64), per_class)
    images = np.empty((len(labels), SIZE, SIZE, 3), dtype=np.uint8)
    for index, label in enumerate(labels):
        images[index] = _digit(int(label), rng)
    return images, labels


def _digit(digit: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    light = rng.random() < 0.5
    canvas = _clutter(light, rng)
    canvas.paste(_colour(not light, rng), mask=_glyph(digit, rng))
    noise = NOISE * rng.standard_normal((SIZE, SIZE, 3), dtype=np.float32)
    noisy = np.clip(np.rint(np.asarray(canvas) + noise), 0, 255)
    return np.asarray(noisy, dtype=np.uint8)


def _clutter(light: bool, rng: np.random.Generator) -> Image.Image:
    """A background of blurred patches crossed by a few strokes, light or dark as a whole."""
    low = 120 if light else 0
    patches = rng.integers(low, low + 136, (4, 4, 3)).astype(np.uint8)
    canvas = Image.fromarray(patches).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(2, 6)):
        x0, y0, x1, y1 = rng.integers(0, SIZE, 4).tolist()
        pen.line((x0, y0, x1, y1), fill=_colour(rng.random() < 0.5, rng), width=1)
    return canvas


def _glyph(digit: int, rng: np.random.Generator) -> Image.Image:
    """The digit's shape as a mask, shifted and rotated at random."""
    mask = Image.new("L", (SIZE, SIZE))
    shift_x, shift_y = rng.uniform(-MAX_SHIFT, MAX_SHIFT, 2).tolist()
    at = (SIZE / 2 + shift_x, SIZE / 2 + shift_y)
    font = _font(int(rng.integers(*FONT_SIZES)))
    ImageDraw.Draw(mask).text(at, str(digit), fill=255, font=font, anchor="mm")
    angle = float(rng.uniform(-MAX_ANGLE, MAX_ANGLE))
    return mask.rotate(angle, Image.Resampling.BILINEAR)


def _colour(light: bool, rng: np.random.Generator) -> tuple[int, int, int]:
    low = 170 if light else 0
    red, green, blue = rng.integers(low, low + 86, 3).tolist()
    return red, green, blue


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "a sized default font is always FreeType"
    return font
