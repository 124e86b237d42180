"""Age and gender of the people in images.

`Labeller` labels single images, without Ray; `label_dataset` labels a Ray Dataset. The jobs in `jobs/`
label whole archives and train models.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lib.labeller import Face, LabelledImage, Labeller
    from lib.scoring.dataset import label_dataset

__all__ = ["Face", "LabelledImage", "Labeller", "label_dataset"]


def __getattr__(name: str) -> Any:
    """Import what is asked for: a job does without the networks, and `Labeller` without Ray."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "label_dataset":
        from lib.scoring.dataset import label_dataset

        return label_dataset
    from lib import labeller

    return getattr(labeller, name)
