"""Crops → probabilities on a GPU: how many at once, in which precision, and whether XLA compiles them."""

from collections.abc import Callable, Mapping, Sequence
from threading import Lock, Thread
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lib.common.gpus import Gpu
from lib.models.bundle import Bundle, Precision, PrecisionChoice
from lib.models.check_crops import answers_of, check_crops
from lib.models.tensorflow_predictor import Predictions, TensorflowPredictor
from lib.tasks import TASKS

CLOSE_YEARS = 0.05
"""What half precision may change the ages of the check crops by on average; other tasks in proportion."""
HALVES: tuple[Precision, ...] = ("float16", "bfloat16")
"""In the order in which they are tried: float16 has three more digits, and was faster on an H100."""
HALF_FROM = (7, 0)
"""Compute capability from which GPUs are faster in half precision."""
BYTES_OF_PIXEL = 1024
"""Of activations for each pixel of a crop; VGG-Face, which has the most, takes 50 MB for 224 x 224."""
MEMORY_SHARE = 0.25
"""Of the worker's part of the GPU's memory, for the activations of one call."""
MOST_FACES, MOST_PIXELS = 512, 256 * 224 * 224
"""In one call: more were not faster on an H100, for the embedded model and for VGG-Face."""
LEAST_FACES = 8
STEP = 4
"""From one number of faces in a call to the next one."""
COMPILED_FROM = 256 << 20
"""Bytes of the networks' files from which XLA pays: compiled, VGG-Face took 0.56 to 0.6 of the time on an
H100, after 8 to 17 s for the first call."""


class Chosen(NamedTuple):
    """A precision, its predictor, and by how many years the ages differ from float32's on average."""

    precision: Precision
    predictor: TensorflowPredictor
    gap: float


def batch_sizes(side: int, memory: float) -> tuple[int, ...]:
    """Numbers of faces in one call, ascending; so few that each is traced and tuned once.

    Args:
        side: of the crops, in pixels.
        memory: bytes of the GPU for this process.
    """
    fitting = memory * MEMORY_SHARE / (BYTES_OF_PIXEL * side**2)
    most = max(LEAST_FACES, min(MOST_FACES, MOST_PIXELS // side**2, int(fitting)))
    largest = 1 << most.bit_length() - 1
    sizes = [max(LEAST_FACES, largest // STEP**power) for power in range(3)]
    return tuple(sorted(set(sizes)))


def choose(
    bundle: Bundle,
    tasks: Sequence[str],
    load: Callable[[Precision], TensorflowPredictor],
) -> Chosen:
    """The first of `HALVES` whose ages stay close to float32's on the check crops; else float32."""
    crops = check_crops(bundle.crop.size)
    graph = bundle.card.inference
    exact = graph.answers if graph is not None else answers_of(load("float32")(crops))
    for precision in HALVES:
        predictor = load(precision)
        gap = gap_in_years(answers_of(predictor(crops)), exact, tasks)
        if gap <= CLOSE_YEARS:
            return Chosen(precision, predictor, gap)
    return Chosen("float32", load("float32"), 0.0)


def gap_in_years(
    found: Mapping[str, Sequence[float]], exact: Mapping[str, Sequence[float]], tasks: Sequence[str]
) -> float:
    """Mean difference of answers, the largest of all tasks; as a share of the classes, of 101 years.

    Infinite where an answer is not finite.
    """
    gaps = [
        float(np.abs(np.subtract(found[task], exact[task])).mean()) / TASKS[task].classes
        for task in tasks
    ]
    return max(gaps) * 101 if np.isfinite(gaps).all() else float("inf")


class GpuPredictor:
    """The networks of some tasks on a GPU; see `lib.models.predictor.Predictor`. Threads may share it.

    Where half precision overflows for a face, which the check crops cannot rule out, all is computed in
    float32 from then on.

    Args:
        bundle: the model, on this machine.
        tasks: of it.
        precision: what the networks compute in; "auto": half precision where it is close.
        gpu: that this process computes on.
        share: of the GPU that is this worker's.
        say: takes a line about what was chosen.
    """

    def __init__(
        self,
        bundle: Bundle,
        tasks: Sequence[str],
        precision: PrecisionChoice,
        gpu: Gpu,
        share: float,
        say: Callable[[str], None],
    ) -> None:
        sizes = batch_sizes(bundle.crop.size, gpu.memory * share)
        self._load = lambda p: TensorflowPredictor(bundle, tasks, p, sizes)
        self._say = say
        self._lock = Lock()
        if precision != "auto":
            chosen, about = Chosen(precision, self._load(precision), 0.0), "as asked"
        elif gpu.capability < HALF_FROM:
            chosen, about = Chosen("float32", self._load("float32"), 0.0), "it is slow in others"
        else:
            chosen = choose(bundle, tasks, self._load)
            about = f"ages within {chosen.gap:.3f} years of float32's on the check crops"
        self._predictor, self._precision = chosen.predictor, chosen.precision
        # In float16 the graph was as fast as what XLA compiled.
        self._to_compile = bundle.weight_bytes >= COMPILED_FROM and self._precision != "float16"
        say(f"the models compute on {gpu.name} in {self._precision} ({about})")

    def __call__(self, crops: NDArray[np.uint8]) -> Predictions:
        """Compute the probabilities of a batch of crops."""
        found = self._predictor(crops)
        if self._precision != "float32" and not _finite(found):
            self._take_float32()
            found = self._predictor(crops)
        self._compile_once()
        return found

    def _take_float32(self) -> None:
        with self._lock:
            if self._precision != "float32":
                self._say(f"a face overflows in {self._precision}: float32 from now on")
                self._predictor, self._precision = self._load("float32"), "float32"

    def _compile_once(self) -> None:
        """Begin to compile, behind the first batch, which does not wait for that."""
        with self._lock:
            begin, self._to_compile = self._to_compile, False
        if begin:
            Thread(target=self._predictor.compile, daemon=True).start()


def _finite(found: Predictions) -> bool:
    return all(bool(np.isfinite(values).all()) for values in found.values())
