"""Random changes that leave age and gender as they are, in the graph, a batch at a time."""

import math

import tensorflow as tf

ROTATION = math.radians(12.0)
SHIFT = 0.06
"""Of the crop's side, in each direction."""
ZOOM = (0.80, 1.15)
"""Part of the source that fills the crop: below 1 zooms in, above 1 shows a black border."""
BRIGHTNESS = 0.20
CONTRAST = (0.7, 1.35)
SATURATION = (0.0, 1.5)
ERASE_PROBABILITY = 0.25
ERASE_SIDE = (0.15, 0.4)


def augment(images: tf.Tensor, size: int) -> tf.Tensor:
    """Flip, rotate, shift, zoom, recolour and partly erase each image in its own way.

    Args:
        images: uint8 (n, side, side, 3), RGB.
        size: side of the result in pixels.

    Returns:
        float32 (n, size, size, 3) in 0..1.
    """
    x = _warp(tf.cast(images, tf.float32) / 255.0, size)
    return _erase(_recolour(x))


def plain(images: tf.Tensor, size: int) -> tf.Tensor:
    """Only resize by area: what validation and scoring see. Shapes and ranges as for `augment`."""
    x = tf.cast(images, tf.float32) / 255.0
    return x if images.shape[1] == size else tf.image.resize(x, (size, size), method="area")


def _warp(x: tf.Tensor, size: int) -> tf.Tensor:
    n = tf.shape(x)[0]
    side = float(x.shape[1])
    angle = tf.random.uniform((n,), -ROTATION, ROTATION)
    zoom = tf.exp(tf.random.uniform((n,), math.log(ZOOM[0]), math.log(ZOOM[1]))) * side / size
    mirror = tf.where(tf.random.uniform((n,)) < 0.5, -1.0, 1.0)
    shift = tf.random.uniform((2, n), -SHIFT, SHIFT) * side
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


def _recolour(x: tf.Tensor) -> tf.Tensor:
    def draw(low: float, high: float) -> tf.Tensor:
        return tf.random.uniform((tf.shape(x)[0], 1, 1, 1), low, high)

    grey = tf.reduce_mean(x, axis=3, keepdims=True)
    x = grey + (x - grey) * draw(*SATURATION)
    mean = tf.reduce_mean(x, axis=(1, 2, 3), keepdims=True)
    x = mean + (x - mean) * draw(*CONTRAST) + draw(-BRIGHTNESS, BRIGHTNESS)
    return tf.clip_by_value(x, 0.0, 1.0)


def _erase(x: tf.Tensor) -> tf.Tensor:
    n, size = tf.shape(x)[0], x.shape[1]
    position = tf.range(size, dtype=tf.float32)[None, :] / float(size)

    def span() -> tf.Tensor:
        length = tf.random.uniform((n, 1), *ERASE_SIDE)
        start = tf.random.uniform((n, 1)) * (1.0 - length)
        return (position >= start) & (position < start + length)

    chosen = tf.random.uniform((n, 1, 1)) < ERASE_PROBABILITY
    hidden = span()[:, :, None] & span()[:, None, :] & chosen
    return tf.where(hidden[..., None], tf.random.uniform((n, 1, 1, 3)), x)
