"""How to train."""

from dataclasses import dataclass
from typing import Annotated, get_args

import tyro

from lib.common.errors import UserError
from lib.models.bundle import Precision
from lib.tasks import TaskName

_FLAG = tyro.conf.FlagCreatePairsOff


@dataclass(frozen=True)
class Recipe:
    """How to train; defaults "of the backbone" are those of its `BackboneSpec`.

    Attributes:
        tasks: What the model learns to predict.
        epochs: Passes over the training faces.
        batch_size: Faces of a step on each worker. Of multiples of 32, only their sum over the workers
            matters to what is learnt. Default: 96; on GPUs by the backbone, the memory and the faces.
        size: Side of the crops in pixels that the model is made for; default: of the backbone.
        progressive_size: Side during the first epochs, which are cheaper for it; 0: none are smaller.
        progressive_epochs: How many epochs run at the progressive size.
        frozen_epochs: Epochs at the start in which only what the backbone leaves free is trained;
            -1: all of them. Default: of the backbone.
        backbone_lr_multiplier: Factor on the learning rate of weights that are frozen at first, once they
            are free.
        learning_rate: The highest, reached after the warm-up; it then falls to zero as a cosine.
            Default: of the backbone.
        warmup_epochs: Epochs over which the rate rises from zero.
        weight_decay: Decoupled from the gradient (AdamW).
        accumulate: Steps whose gradients are added up to one.
        precision: What the networks compute in; their weights are float32 always. Default: float32; on
            GPUs bfloat16.
        age_sigma: Smoothing of each age over its neighbours, in years.
        expectation_weight: Of the distance between expected and true age in the age loss.
        gender_weight: Of the gender loss.
        age_reweighting: Power of the inverse frequency with which faces of rare ages count more: 0 to 1.
        suspect_weight: Factor on the loss of faces that --suspects marks, 0 to 1; 0 leaves them out.
        mixup: Strength of the blending of pairs of faces (alpha of Zhang et al. 2018); 0: none.
        distillation: Share of the teachers' answers in what is learnt; the rest are the labels.
        dropout: Share of the features that the heads do not see in a step.
        ema_momentum: Momentum of the moving average of the weights, which is kept; 0: none.
        plain: No augmentation at all.
        patience: Stop after that many epochs without a lower validation error; 0: never.
        seed: Of the weights, the order of the faces and the augmentation.
    """

    tasks: tuple[TaskName, ...] = get_args(TaskName)
    epochs: int = 36
    batch_size: int | None = None
    size: int | None = None
    progressive_size: int = 0
    progressive_epochs: int = 0
    frozen_epochs: int | None = None
    backbone_lr_multiplier: float = 0.1
    learning_rate: float | None = None
    warmup_epochs: float = 1.5
    weight_decay: float = 0.05
    accumulate: int = 1
    precision: Precision | None = None
    age_sigma: float = 2.0
    expectation_weight: float = 0.1
    gender_weight: float = 1.5
    age_reweighting: float = 0.0
    suspect_weight: float = 0.0
    mixup: float = 0.0
    distillation: float = 0.7
    dropout: float = 0.3
    ema_momentum: float = 0.998
    plain: Annotated[bool, _FLAG] = False
    patience: int = 0
    seed: int = 0

    def check(self) -> None:
        """Refuse impossible values.

        Raises:
            UserError: names the option and the value.
        """
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise UserError(
                f"--tasks must be age, gender or both, not {' '.join(self.tasks) or 'none'}"
            )
        for name in ("epochs", "accumulate"):
            self._demand(name, getattr(self, name) >= 1, "at least 1")
        self._demand("batch_size", self.batch_size is None or self.batch_size >= 1, "at least 1")
        for name in (
            "progressive_size",
            "progressive_epochs",
            "warmup_epochs",
            "patience",
            "weight_decay",
        ):
            self._demand(name, getattr(self, name) >= 0, "at least 0")
        for name in ("expectation_weight", "gender_weight", "mixup", "backbone_lr_multiplier"):
            self._demand(name, getattr(self, name) >= 0, "at least 0")
        for name in ("ema_momentum", "dropout"):
            self._demand(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        self._demand("distillation", 0 <= self.distillation <= 1, "in 0..1")
        self._demand("suspect_weight", 0 <= self.suspect_weight <= 1, "in 0..1")
        self._demand("age_reweighting", 0 <= self.age_reweighting <= 1, "in 0..1")
        self._demand("age_sigma", self.age_sigma > 0, "above 0")
        self._demand("size", self.size is None or self.size >= 32, "at least 32")
        self._demand(
            "progressive_size",
            not self.progressive_size or self.progressive_size >= 32,
            "0 or at least 32",
        )
        rate = self.learning_rate
        self._demand("learning_rate", rate is None or rate > 0, "above 0")
        if self.progressive_epochs and not self.progressive_size:
            raise UserError("--progressive-epochs needs --progressive-size")
        if self.progressive_epochs >= self.epochs:
            raise UserError(
                f"--progressive-epochs {self.progressive_epochs} leaves none of the {self.epochs} "
                "--epochs for the full size"
            )

    def _demand(self, name: str, fulfilled: bool, what: str) -> None:
        if not fulfilled:
            option = name.replace("_", "-")
            raise UserError(f"--{option} must be {what}, not {getattr(self, name)}")
