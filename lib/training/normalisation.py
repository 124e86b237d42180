"""Batch normalisation by groups of one size, which workers need not talk about.

Known as ghost batch normalisation (Hoffer et al. 2017, "Train longer, generalize better"). Statistics of
the batch of all workers would take two exchanges for each layer in each step; those of each worker's
batch would make what is learnt depend on how many share a batch.
"""

from typing import Any

import keras
import tensorflow as tf

GROUP = 32
"""Faces of a group. Of less than 16 the error rises (Wu & He 2018, "Group normalization", figure 1)."""

MOST_PARTS = 4
"""Groups that are normalised one by one, which is faster on CPUs; more would make the graph too large."""


def in_groups(model: keras.Model) -> keras.Model:
    """The same network, whose batch normalisation sees some faces of a batch at a time.

    Only training needs that: what is saved is a network of Keras's own layers, with the same weights in
    the same order.
    """
    if not any(_normalises(layer) for layer in model.layers):
        return model

    def clone(layer: Any) -> Any:
        kind = _InGroups if _normalises(layer) else type(layer)
        return kind.from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy


def statistics(model: keras.Model) -> list[keras.Variable]:
    """Moving means and variances, which differ between workers after a step."""
    layers = [layer for layer in model.layers if _normalises(layer)]
    return [v for layer in layers for v in (layer.moving_mean, layer.moving_variance)]


def _normalises(layer: Any) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization)


class _InGroups(keras.layers.BatchNormalization):
    """Keras's layer for groups of a batch."""

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: Any = None) -> tf.Tensor:
        """Normalise over all axes but the last. The batch's size must be known."""
        if not (training and self.trainable):
            return super().call(inputs, training=False)
        gamma, beta = self.gamma.value, self.beta.value
        sizes = group_sizes(inputs.shape[0])
        together = len(sizes) > MOST_PARTS and len(set(sizes)) == 1
        normalise = _by_one_operation if together else _by_parts
        outputs, mean, variance = normalise(inputs, gamma, beta, sizes, self.epsilon)
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + value * (1 - self.momentum))
        return outputs


def _by_parts(
    inputs: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, sizes: list[int], epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalise each group by the fused operation; also the means of the groups' statistics, (c,)."""
    each = [
        tf.compat.v1.nn.fused_batch_norm(part, gamma, beta, epsilon=epsilon)
        for part in tf.split(inputs, sizes)
    ]
    outputs, means, variances = zip(*each, strict=True)
    return tf.concat(outputs, axis=0), tf.add_n(means) / len(each), tf.add_n(variances) / len(each)


def _by_one_operation(
    inputs: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, sizes: list[int], epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The same for groups of one size, in as few operations for many of them as for one."""
    values = tf.reshape(inputs, (len(sizes), -1, inputs.shape[-1]))
    count = values.shape[1]

    @tf.custom_gradient  # which needs no copy in float32 of what was normalised
    def normalised(x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor) -> Any:
        wide = tf.cast(x, tf.float32)
        mean = tf.reduce_mean(wide, axis=1, keepdims=True)
        variance = tf.reduce_mean(tf.square(wide - mean), axis=1, keepdims=True)
        inverse = tf.math.rsqrt(variance + epsilon)

        def gradient(dy: tf.Tensor, *of_statistics: tf.Tensor) -> tuple[tf.Tensor, ...]:
            dy = tf.cast(dy, tf.float32)
            standard = (tf.cast(x, tf.float32) - mean) * inverse
            of_offset = tf.reduce_sum(dy, axis=1, keepdims=True)
            of_scale = tf.reduce_sum(dy * standard, axis=1, keepdims=True)
            dx = scale * inverse * (dy - (of_offset + standard * of_scale) / count)
            return (
                tf.cast(dx, x.dtype),
                tf.reduce_sum(of_scale, axis=(0, 1)),
                tf.reduce_sum(of_offset, axis=(0, 1)),
            )

        y = tf.cast((wide - mean) * (inverse * scale) + offset, x.dtype)
        return (y, mean, variance), gradient

    outputs, means, variances = normalised(values, tf.identity(gamma), tf.identity(beta))
    # The fused operation divides by one less.
    unbiased = tf.reduce_mean(variances, axis=(0, 1)) * (count / max(1, count - 1))
    return tf.reshape(outputs, tf.shape(inputs)), tf.reduce_mean(means, axis=(0, 1)), unbiased


def group_sizes(faces: int) -> list[int]:
    """Sizes of the groups of a batch, as even as can be."""
    groups = max(1, round(faces / GROUP))
    return [faces * (n + 1) // groups - faces * n // groups for n in range(groups)]
