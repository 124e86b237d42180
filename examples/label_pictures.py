"""Label pictures in this process, without Ray: `python -m examples.label_pictures PICTURE …`."""

import sys

from lib import Labeller


def main(pictures: list[str]) -> None:
    """Print a line for each face, and why a picture has no label."""
    labeller = Labeller()
    for picture, labels in zip(pictures, labeller.label_batch(pictures), strict=True):
        if not labels:
            print(f"{picture}: {labels.status} {labels.error or ''}")
        for face in labels:
            print(
                f"{picture}: {face.age:.0f} years ({face.age_low:.0f} to {face.age_high:.0f}), "
                f"{face.gender} {face.gender_score:.2f}, at {face.box.x}, {face.box.y}"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
