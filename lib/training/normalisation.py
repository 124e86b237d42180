"""Batch normalisation by the batch of all workers, with less to exchange than Keras's own."""

from typing import Any

import keras
import tensorflow as tf


def shared(model: keras.Model) -> keras.Model:
    """The same network, whose batch normalisation sees the batches of all workers as one.

    However many workers share a batch, its losses are the same. Only training needs that: what is saved
    is a network of Keras's own layers, with the same weights in the same order.
    """
    if not any(_normalises(layer) for layer in model.layers):
        return model

    def clone(layer: Any) -> Any:
        kind = _Shared if _normalises(layer) else type(layer)
        return kind.from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy


def _normalises(layer: Any) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization)


class _Shared(keras.layers.BatchNormalization):
    """Keras's layer with `synchronized` exchanges three times in each direction, this one once.

    Every worker's part must be of the same size.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: Any = None) -> tf.Tensor:
        """Normalise over all axes but the last."""
        context = tf.distribute.get_replica_context()
        if not (training and self.trainable) or context is None:
            return super().call(inputs, training=False)
        if context.num_replicas_in_sync == 1:
            outputs, mean, variance = self._of_one(inputs)
        else:
            outputs, mean, variance = self._of_all(inputs, context)
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + value * (1.0 - self.momentum))
        return outputs

    def _of_one(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta),
            epsilon=self.epsilon, is_training=True,
        )  # fmt: skip
        count = tf.cast(tf.size(inputs) / tf.size(mean), tf.float32)
        return (
            outputs,
            mean,
            variance * (count - 1.0) / count,
        )  # that of the sample, as in `_of_all`

    def _of_all(self, inputs: tf.Tensor, context: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        x = tf.cast(inputs, tf.float32)
        axes = list(range(x.shape.rank - 1))
        sums = tf.stack([tf.reduce_sum(x, axes), tf.reduce_sum(tf.square(x), axes)])
        sums = context.all_reduce(tf.distribute.ReduceOp.SUM, sums)
        count = tf.size(x) / tf.size(sums[0]) * context.num_replicas_in_sync
        mean, squares = tf.unstack(sums / tf.cast(count, tf.float32))
        variance = tf.maximum(squares - tf.square(mean), 0.0)
        factor = self.gamma * tf.math.rsqrt(variance + self.epsilon)
        outputs = x * factor + (self.beta - mean * factor)
        return tf.cast(outputs, inputs.dtype), mean, variance
