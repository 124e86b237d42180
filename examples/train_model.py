"""Train a small model from Python: `python -m examples.train_model FACES OUTPUT`.

FACES is the folder `faces/` that `jobs.prepare` writes.
"""

import sys

from jobs.train import Options, train_model
from lib import Labeller
from lib.training.recipe import Recipe


def main(faces: str, output: str) -> None:
    """Train for two epochs on small crops, and load the model."""
    recipe = Recipe(epochs=2, size=32, batch_size=32)
    bundle = train_model(Options(data=faces, output=output, backbone="compact", recipe=recipe))
    Labeller(str(bundle), detector="none")
    print(f"trained: {bundle}")


if __name__ == "__main__":
    main(*sys.argv[1:])
