"""Knowledge distillation: learning the answers of trained models beside the labels.

A wrong label teaches less then, and a face between two ages or genders more than one number.
Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015. All models see the same
view of a face (Beyer et al., "Knowledge distillation: A good teacher is patient and consistent", CVPR
2022), but what hides detail from the student is kept from the teachers (Xie et al., "Self-training with
Noisy Student improves ImageNet classification", CVPR 2020). They answer by the mean over each face and
its mirror image. So the student learns that neither changes an age.
"""

from collections.abc import Sequence

import tensorflow as tf

from lib.models.bundle import Bundle, Precision
from lib.models.tensorflow_predictor import TensorflowPredictor
from lib.tasks import TASKS
from lib.training.augment import resized


class Teachers:
    """Models that answer together: the mean of their probabilities."""

    def __init__(
        self, bundles: Sequence[Bundle], tasks: Sequence[str], precision: Precision
    ) -> None:
        """Load them.

        Args:
            bundles: at least one; each knows all `tasks`.
            tasks: that are learnt.
            precision: what they compute in.

        Raises:
            UserError: as `lib.models.tensorflow_predictor.TensorflowPredictor`.
        """
        self._tasks = tasks
        self._predictors = [
            (bundle, TensorflowPredictor(bundle, tasks, precision)) for bundle in bundles
        ]
        self.size = max(bundle.crop.size for bundle in bundles)
        """Side in pixels of the largest crops that one of them takes."""

    def __call__(self, crops: tf.Tensor) -> dict[str, tf.Tensor]:
        """Crops, RGB float32 (n, side, side, 3) in 0..1 → by task float32 (n, classes)."""
        answers = [self._answer(bundle, network, crops) for bundle, network in self._predictors]
        return {task: tf.add_n([a[task] for a in answers]) / len(answers) for task in self._tasks}

    @staticmethod
    def _answer(
        bundle: Bundle, network: TensorflowPredictor, crops: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """The probabilities of one model, in the order of the tasks' own classes."""
        pixels = resized(crops, bundle.crop.size) * 255.0
        both = [network.probabilities(view) for view in (pixels, tf.reverse(pixels, [2]))]
        answers = {task: (both[0][task] + both[1][task]) / 2.0 for task in both[0]}
        for task, labels in bundle.card.class_labels.items():
            if task in answers:
                order = [labels.index(label) for label in TASKS[task].labels]
                answers[task] = tf.gather(answers[task], order, axis=1)
        return answers
