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
    """The same for groups of one size, by one fused operation: each group gets channels of its own."""
    groups, channels = len(sizes), inputs.shape[-1]
    apart = tf.transpose(tf.reshape(inputs, (groups, -1, channels)), (1, 0, 2))
    outputs, means, variances = tf.compat.v1.nn.fused_batch_norm(
        tf.reshape(apart, (1, -1, 1, groups * channels)),
        tf.tile(gamma, [groups]),
        tf.tile(beta, [groups]),
        epsilon=epsilon,
    )
    together = tf.transpose(tf.reshape(outputs, (-1, groups, channels)), (1, 0, 2))
    mean, variance = (
        tf.reduce_mean(tf.reshape(values, (groups, channels)), axis=0)
        for values in (means, variances)
    )
    return tf.reshape(together, tf.shape(inputs)), mean, variance


def group_sizes(faces: int) -> list[int]:
    """Sizes of the groups of a batch, as even as can be."""
    groups = max(1, round(faces / GROUP))
    return [faces * (n + 1) // groups - faces * n // groups for n in range(groups)]
