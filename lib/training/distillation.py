"""Models that are trained already, whose answers another one learns beside the labels.

Of a wrong label it learns less then, and of a face between two ages or genders more than one number.
Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015. All see the same changed
faces: Beyer et al., "Knowledge distillation: A good teacher is patient and consistent", CVPR 2022.
"""

from collections.abc import Sequence

import tensorflow as tf

from lib.models.bundle import Bundle, Precision
from lib.models.heads import GENDER_LABELS
from lib.models.predictor import Predictor
from lib.training.augment import resized


class Teachers:
    """Models that answer together: the mean of their probabilities."""

    def __init__(
        self, bundles: Sequence[Bundle], tasks: Sequence[str], precision: Precision
    ) -> None:
        """Load them.

        Args:
            bundles: at least one; each knows all `tasks`.
            tasks: "age", "gender" or both.
            precision: what they compute in.

        Raises:
            UserError: as `lib.models.predictor.Predictor`.
        """
        self._tasks = tasks
        self._predictors = [
            (bundle, Predictor(bundle, tuple(tasks), precision)) for bundle in bundles
        ]
        self.size = max(bundle.crop.size for bundle in bundles)
        """Side in pixels of the largest crops that one of them takes."""

    def __call__(self, crops: tf.Tensor) -> dict[str, tf.Tensor]:
        """Crops, RGB float32 (n, side, side, 3) in 0..1 → by task float32 (n, classes)."""
        answers = [self._of_one(bundle, network, crops) for bundle, network in self._predictors]
        return {task: tf.add_n([a[task] for a in answers]) / len(answers) for task in self._tasks}

    @staticmethod
    def _of_one(bundle: Bundle, network: Predictor, crops: tf.Tensor) -> dict[str, tf.Tensor]:
        answers = network.probabilities(resized(crops, bundle.crop.size) * 255.0)
        if "gender" in answers:
            order = [bundle.gender_labels.index(label) for label in GENDER_LABELS]
            answers["gender"] = tf.gather(answers["gender"], order, axis=1)
        return answers
