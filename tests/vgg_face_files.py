"""Files of the published layout with random weights, and what they say: written without lib/.

Published are sixteen layers with weights, in this order, under automatic names but for the last:
convolutions of 3 x 3 behind a zero padding of one pixel, then those of 7 x 7, 1 x 1 and 1 x 1.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
POOLED_AFTER = (2, 4, 7, 10, 13)
SPREAD = 1.5
"""Standard deviation of the logits over faces: expected ages then differ by about ten years."""


def kernels(classes: int) -> list[tuple[int, int, int, int]]:
    """The shapes of all sixteen, in order."""
    ins = (3, *WIDTHS[:-1])
    return [
        *((3, 3, i, o) for i, o in zip(ins, WIDTHS, strict=True)),
        (7, 7, 512, 4096),
        (1, 1, 4096, 4096),
        (1, 1, 4096, classes),
    ]


def write_published(file: Path, arrays: Iterator[Floats] | None, classes: int) -> Path:
    """Write a file of `kernels`; without arrays it is of zeros, and small.

    Args:
        file: to write.
        arrays: kernel and bias of each layer, one after the other.
        classes: of the last one.
    """
    with h5py.File(file, "w") as h5:
        h5.attrs.update({"backend": "tensorflow", "keras_version": "2.2.4"})
        names = []
        for number, shape in enumerate(kernels(classes)):
            last = number == len(WIDTHS) + 2
            name = "predictions" if last else f"conv2d_{number + 1}"
            if number < len(WIDTHS):
                names.append(f"zero_padding2d_{number + 1}")
            names.append(name)
            if number + 1 in POOLED_AFTER:
                names.append(f"max_pooling2d_{POOLED_AFTER.index(number + 1) + 1}")
            layer = h5.create_group(name)
            paths = [f"{name}/kernel:0", f"{name}/bias:0"]
            layer.attrs["weight_names"] = [path.encode() for path in paths]
            for path, of in zip(paths, (shape, shape[-1:]), strict=True):
                if arrays is None:
                    layer.create_dataset(path, of, "f4")
                else:
                    layer.create_dataset(path, data=next(arrays))
        for name in names:
            if name not in h5:
                h5.create_group(name).attrs["weight_names"] = np.array([], "S1")
        h5.attrs["layer_names"] = [name.encode() for name in names]
    return file


def write_random(
    folder: Path, samples: Floats, tasks: Sequence[tuple[str, int]]
) -> dict[str, Path]:
    """Write files that share their convolutions, as after transfer learning: `TASK_model_weights.h5`.

    Activations keep their size from layer to layer (He et al. 2015); the last layer is centred and
    scaled so that the samples differ.

    Args:
        folder: for the files.
        samples: inputs like those that the networks will see, (n, 224, 224, 3).
        tasks: names, and numbers of classes.
    """
    rng = np.random.default_rng(0)
    convolutions = [*_random(kernels(1)[: len(WIDTHS)], rng)]
    places = _convolve(samples, iter(convolutions))
    files = {}
    for task, classes in tasks:
        top = [*_random(kernels(classes)[len(WIDTHS) :], rng)]
        logits = _logits(places, iter(top))
        top[-2] *= SPREAD / logits.std(axis=0).mean()
        top[-1] = -logits.mean(axis=0) * SPREAD / logits.std(axis=0).mean()
        file = folder / f"{task}_model_weights.h5"
        files[task] = write_published(file, iter([*convolutions, *top]), classes)
    return files


def reference(file: Path, inputs: Floats) -> Floats:
    """Probabilities (n, classes) of inputs (n, 224, 224, 3)."""
    with h5py.File(file, "r") as h5:
        arrays = _arrays(h5)
        logits = _logits(_convolve(inputs, arrays), arrays).astype(np.float64)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)


def _arrays(h5: h5py.File) -> Iterator[Floats]:
    for name in h5.attrs["layer_names"]:
        for path in h5[name].attrs["weight_names"]:
            yield h5[name][path][()]


def _random(shapes: Sequence[tuple[int, ...]], rng: np.random.Generator) -> Iterator[Floats]:
    for shape in shapes:
        # Of uniform numbers between -1 and 1 the variance is a third.
        kernel = rng.random(shape, np.float32)
        kernel -= 0.5
        kernel *= 2 * np.sqrt(3 * 2 / np.prod(shape[:-1]))
        yield kernel
        yield np.zeros(shape[-1:], np.float32)


def _convolve(inputs: Floats, arrays: Iterator[Floats]) -> Floats:
    """Inputs (n, 224, 224, 3) → (n, 7, 7, 512), one at a time."""
    import tensorflow as tf  # files of zeros do without

    pairs = [(next(arrays), next(arrays)) for _ in WIDTHS]
    places = []
    for image in inputs:
        x = image[np.newaxis]
        for number, (kernel, bias) in enumerate(pairs, start=1):
            padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
            x = np.maximum(tf.nn.conv2d(padded, kernel, 1, "VALID").numpy() + bias, 0)
            if number in POOLED_AFTER:
                n, height, width, channels = x.shape
                x = x.reshape(n, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))
        places.append(x[0])
    return np.stack(places)


def _logits(places: Floats, arrays: Iterator[Floats]) -> Floats:
    """(n, 7, 7, 512) → (n, classes): a convolution over all there is, is a product of matrices."""
    x = places.reshape(len(places), -1)
    for last in (False, False, True):
        kernel, bias = next(arrays), next(arrays)
        x = x @ kernel.reshape(-1, kernel.shape[-1]) + bias
        x = x if last else np.maximum(x, 0)
    return x
