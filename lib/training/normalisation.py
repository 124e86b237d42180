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
        return _by_itself(inputs, self.gamma.value, self.beta.value, self.epsilon)

    def _of_all(self, inputs: tf.Tensor, context: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return _together(inputs, self.gamma.value, self.beta.value, self.epsilon, context)


def _by_itself(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Outputs, and mean and variance of the sample, float32 (channels,)."""
    outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
        x, gamma, beta, epsilon=epsilon, is_training=True
    )
    count = _count(x)
    return outputs, mean, variance * ((count - 1.0) / count)


def _together(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float, context: Any
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The same over the samples of all workers.

    By fused operations, and with the gradient written out: left to TensorFlow, a step of the trunks here
    took nearly twice the time on a CPU.
    """
    workers = context.num_replicas_in_sync

    def mean_of_all(*values: tf.Tensor) -> list[tf.Tensor]:
        total = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.stack(values))
        return tf.unstack(total / workers)

    @tf.custom_gradient
    def normalise(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> Any:
        _, mean, variance = _by_itself(x, gamma, beta, epsilon)
        mean, squares = mean_of_all(mean, variance + tf.square(mean))
        variance = tf.maximum(squares - tf.square(mean), 0.0)
        outputs = _normalised(x, gamma, beta, mean, variance, epsilon)

        def gradient(dy: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            # What it would be, did the statistics not depend on the sample.
            dx, d_gamma, d_beta, _, _ = tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=dy, x=x, scale=gamma, reserve_space_1=mean, reserve_space_2=variance,
                reserve_space_3=tf.zeros((0,)), epsilon=epsilon, is_training=False,
            )  # fmt: skip
            count = _count(x)
            shift, slope = mean_of_all(d_beta / count, d_gamma / count)
            factor = gamma * tf.math.rsqrt(variance + epsilon)
            of_statistics = _normalised(x, factor * slope, factor * shift, mean, variance, epsilon)
            return dx - of_statistics, d_gamma, d_beta

        return (outputs, mean, variance), gradient

    return normalise(x, gamma, beta)


def _normalised(
    x: tf.Tensor,
    factor: tf.Tensor,
    summand: tf.Tensor,
    mean: tf.Tensor,
    variance: tf.Tensor,
    epsilon: float,
) -> tf.Tensor:
    """What a layer of a trained network does."""
    outputs, _, _ = tf.compat.v1.nn.fused_batch_norm(
        x, factor, summand, mean, variance, epsilon, is_training=False
    )
    return outputs


def _count(x: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.size(x) // x.shape[-1], tf.float32)
