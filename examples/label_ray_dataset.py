"""Label a Ray Dataset of your own: `python -m examples.label_ray_dataset FOLDER OUTPUT`."""

import sys
from pathlib import Path

import ray.data

from lib import label_dataset


def main(folder: str, output: str) -> None:
    """Label every file of a folder, keep its path beside the labels, and write Parquet."""
    # Ray's own readers pass over names that begin with "_", as cameras name photographs in Adobe RGB.
    files = sorted(file for file in Path(folder).rglob("*") if file.is_file())
    pictures = ray.data.from_items([{"path": str(file)} for file in files])
    label_dataset(pictures, image="path").write_parquet(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
