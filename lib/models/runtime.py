"""TensorFlow's settings for one worker process. They hold only before its first operation."""

import cv2
import tensorflow as tf


def configure(threads: int) -> None:
    """Keep TensorFlow and OpenCV to the CPUs that the worker was given; let GPU memory grow.

    Called again in the same process it changes nothing: TensorFlow takes its threads only once.
    """
    cv2.setNumThreads(threads)
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        # One operation at a time: the networks are chains, a second pool would only idle.
        tf.config.threading.set_inter_op_parallelism_threads(1)
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:  # already running
        return
