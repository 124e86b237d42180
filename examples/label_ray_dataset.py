"""Label a Ray Dataset of your own: `python -m examples.label_ray_dataset FOLDER OUTPUT`."""

import sys

import ray.data

from lib import label_dataset


def main(folder: str, output: str) -> None:
    """Read every file of a folder, keep its path beside the labels, and write Parquet."""
    pictures = ray.data.read_binary_files(folder, include_paths=True)
    labels = label_dataset(pictures, image="bytes")
    labels.drop_columns(["bytes"]).write_parquet(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
