"""Random changes that leave age and gender as they are, in the graph, a batch at a time.

All chance comes from the seed that is given, so that a run which goes on draws what it would have drawn.
"""

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

ROTATION = math.radians(12.0)
SHIFT = 0.06
"""Of the crop's side, in each direction."""
ZOOM = (0.80, 1.15)
"""Part of the source that fills the crop: below 1 zooms in, above 1 shows a black border."""
BRIGHTNESS = 0.20
CONTRAST = (0.7, 1.35)
SATURATION = (0.0, 1.5)
SHARPNESS = (0.0, 3.0)
"""Factor of what a blur of one pixel takes away: 0 leaves the blurred face, above 1 sharpens. Photographs
cut down to a crop are sharper than the faces of UTKFace, and a model that has seen only those takes
sharpness for age."""
COARSE = (2, 3, 4)
"""Divisors of the side: a face keeps only the detail of so few pixels, as one does that was far from the
camera."""
COARSE_PROBABILITY = 0.2
"""Of each divisor."""
ERASE_PROBABILITY = 0.25
ERASE_SIDE = (0.15, 0.4)

Draw = Callable[..., tf.Tensor]


def augment(images: tf.Tensor, size: int, seed: tf.Tensor) -> tf.Tensor:
    """Flip, rotate, shift, zoom and recolour each image in its own way.

    Args:
        images: uint8 (n, side, side, 3), RGB.
        size: side of the result in pixels.
        seed: int32 (2,).

    Returns:
        float32 (n, size, size, 3) in 0..1.
    """
    draw = _drawer(seed)
    return _recolour(_warp(tf.cast(images, tf.float32) / 255.0, size, draw), draw)


def degrade(x: tf.Tensor, seed: tf.Tensor, coarsen: bool) -> tf.Tensor:
    """Sharpen or soften, coarsen and partly erase each image: what is learnt of it stays the same.

    Args:
        x: float32 (n, size, size, 3) in 0..1.
        seed: int32 (2,).
        coarsen: for students of teachers that saw all pixels. By labels alone four epochs on crops of 64
            pixels erred by 0.3 years more with coarse faces.

    Returns:
        Of the same shape and range.
    """
    draw = _drawer(seed)
    x = _sharpen(x, draw)
    return _erase(_coarsen(x, draw) if coarsen else x, draw)


def plain(images: tf.Tensor, size: int) -> tf.Tensor:
    """Only resize: what validation and scoring see. Shapes and ranges as for `augment`."""
    return resized(tf.cast(images, tf.float32) / 255.0, size)


def resized(x: tf.Tensor, size: int) -> tf.Tensor:
    """Squares, float32 (n, side, side, 3), by area to another side."""
    if x.shape[1] == size:
        return x
    # As `tf.image.resize` does it, which would take the batch from the GPU to the CPU and back.
    shares = tf.constant(_shares(x.shape[1], size))
    for _ in ("height", "width"):
        rows = tf.reshape(x, (-1, x.shape[1], x.shape[2] * 3))
        rows = tf.reshape(tf.matmul(shares, rows), (-1, size, x.shape[2], 3))
        x = tf.transpose(rows, (0, 2, 1, 3))
    return x


def _shares(side: int, size: int) -> NDArray[np.float32]:
    """What each of `side` pixels gives to each of `size` that lie over the same length; (size, side)."""
    edges = np.arange(size + 1) * side / size
    pixels = np.arange(side)
    begins = np.maximum(edges[:-1, None], pixels)
    ends = np.minimum(edges[1:, None], pixels + 1)
    return (np.maximum(ends - begins, 0) * size / side).astype(np.float32)


def mixup(
    x: tf.Tensor, targets: tuple[tf.Tensor, ...], alpha: float, seed: tf.Tensor
) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
    """Blend each face, and its targets, with that at the other end of the batch.

    Zhang, Cisse, Dauphin and Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", ICLR 2018; one
    share for the batch.

    Args:
        x: float32 (n, size, size, 3).
        targets: float32 (n, classes) each.
        alpha: of the Beta distribution, with two equal parameters, of the share.
        seed: int32 (2,).
    """
    gammas = tf.random.stateless_gamma((2,), seed, alpha)
    share = gammas[0] / tf.maximum(gammas[0] + gammas[1], 1e-12)

    def blend(t: tf.Tensor) -> tf.Tensor:
        return share * t + (1.0 - share) * tf.reverse(t, [0])

    return blend(x), tuple(blend(target) for target in targets)


def _drawer(seed: tf.Tensor) -> Draw:
    """A function like `tf.random.uniform` whose n-th call gives the n-th draw of the seed."""
    calls = iter(range(1 << 16))

    def draw(shape: tuple[tf.Tensor | int, ...], low: float = 0.0, high: float = 1.0) -> tf.Tensor:
        fresh = tf.random.experimental.stateless_fold_in(seed, next(calls))
        return tf.random.stateless_uniform(shape, fresh, low, high)

    return draw


def _warp(x: tf.Tensor, size: int, draw: Draw) -> tf.Tensor:
    n = tf.shape(x)[0]
    side = float(x.shape[1])
    angle = draw((n,), -ROTATION, ROTATION)
    zoom = tf.exp(draw((n,), math.log(ZOOM[0]), math.log(ZOOM[1]))) * side / size
    mirror = tf.where(draw((n,)) < 0.5, -1.0, 1.0)
    shift = draw((2, n), -SHIFT, SHIFT) * side
    cos, sin = tf.cos(angle) * zoom, tf.sin(angle) * zoom
    a, b, c, d = cos * mirror, -sin, sin * mirror, cos
    middle_in, middle_out = (side - 1.0) / 2.0, (size - 1.0) / 2.0
    tx = middle_in + shift[0] - (a + b) * middle_out
    ty = middle_in + shift[1] - (c + d) * middle_out
    zero = tf.zeros((n,))
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=x,
        transforms=tf.stack([a, b, tx, c, d, ty, zero, zero], axis=1),
        output_shape=(size, size),
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=0.0,
    )


def _sharpen(x: tf.Tensor, draw: Draw) -> tf.Tensor:
    row = tf.constant([1.0, 4.0, 6.0, 4.0, 1.0]) / 16.0  # binomial: a Gaussian of one pixel
    kernel = tf.tile((row[:, None] * row[None, :])[..., None, None], (1, 1, 3, 1))
    padded = tf.pad(x, [[0, 0], [2, 2], [2, 2], [0, 0]], "REFLECT")
    blurred = tf.nn.depthwise_conv2d(padded, kernel, (1, 1, 1, 1), "VALID")
    sharpened = blurred + (x - blurred) * draw((tf.shape(x)[0], 1, 1, 1), *SHARPNESS)
    return tf.clip_by_value(sharpened, 0.0, 1.0)


def _coarsen(x: tf.Tensor, draw: Draw) -> tf.Tensor:
    n, size = tf.shape(x)[0], x.shape[1]
    chosen = draw((n, 1, 1, 1)) / COARSE_PROBABILITY
    result = x
    for number, divisor in enumerate(COARSE):
        few = tf.nn.avg_pool2d(x, divisor, divisor, "SAME")
        coarse = tf.image.resize(few, (size, size), method="bilinear")
        result = tf.where((chosen >= number) & (chosen < number + 1), coarse, result)
    return result


def _recolour(x: tf.Tensor, draw: Draw) -> tf.Tensor:
    each = (tf.shape(x)[0], 1, 1, 1)
    grey = tf.reduce_mean(x, axis=3, keepdims=True)
    x = grey + (x - grey) * draw(each, *SATURATION)
    mean = tf.reduce_mean(x, axis=(1, 2, 3), keepdims=True)
    x = mean + (x - mean) * draw(each, *CONTRAST) + draw(each, -BRIGHTNESS, BRIGHTNESS)
    return tf.clip_by_value(x, 0.0, 1.0)


def _erase(x: tf.Tensor, draw: Draw) -> tf.Tensor:
    n, size = tf.shape(x)[0], x.shape[1]
    position = tf.range(size, dtype=tf.float32)[None, :] / float(size)

    def span() -> tf.Tensor:
        length = draw((n, 1), *ERASE_SIDE)
        start = draw((n, 1)) * (1.0 - length)
        return (position >= start) & (position < start + length)

    chosen = draw((n, 1, 1)) < ERASE_PROBABILITY
    hidden = span()[:, :, None] & span()[:, None, :] & chosen
    return tf.where(hidden[..., None], draw((n, 1, 1, 3)), x)
