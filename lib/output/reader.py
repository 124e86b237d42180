"""Reads the output folder of a labelling, finished or not."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from lib.archive.manifest import Manifest, read_manifest
from lib.common.errors import UserError, reason_of
from lib.images import Limits
from lib.output import run_record
from lib.output.summary import Summary
from lib.storage.folder import Folder
from lib.storage.folder import folder as as_folder
from lib.storage.options import StorageOptions

JOB = "jobs.score"
LOOKS = 3
THREADS_ON_DISK, THREADS_ELSEWHERE = 4, 64
"""Threads that read small files; reads from a bucket mostly wait."""


@dataclass(frozen=True)
class LabelFile:
    """A committed file of label rows.

    Attributes:
        path: on the output's file system.
        written: when, in seconds since 1970.
    """

    path: str
    written: float


@dataclass(frozen=True)
class FileCounts:
    """The rows of a file by status, and when it was written, in seconds since 1970."""

    written: float
    statuses: Counter[str]


class Output:
    """The output folder of a labelling, on a local disk or in a bucket.

    Attributes:
        name: the folder as it was given.
        record: contents of `run.json`.
        storage: options for the images of the archive.
    """

    def __init__(self, folder: str, storage: StorageOptions | None = None) -> None:
        """Read the record of the run.

        Args:
            folder: what jobs.score had as --output, a path or a URI.
            storage: options for the output and the images. None or the default options: this
                machine's environment for the output, the run's own options for the images.

        Raises:
            UserError: the folder holds no labelling, or cannot be read.
        """
        self.name = folder
        given = storage or StorageOptions()
        try:
            self._folder = as_folder(folder, given.resolved_for(folder))
            self.record = run_record.read(self._folder)
        except FileNotFoundError:
            raise UserError(
                f"no labelling in {folder!r}: it has no {run_record.FILE}; "
                "give the folder that was the --output of jobs.score"
            ) from None
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"cannot read {folder!r}: {reason_of(error)}") from None
        if self.record.job != JOB:
            raise UserError(
                f"{folder!r} is no labelling but an output of {self.record.job}; "
                f"give the folder that was the --output of {JOB}"
            )
        self.storage = self.record.storage if given == StorageOptions() else given.resolved()

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """All options that change a label, as `run.json` has them."""
        return self.record.fingerprint

    @property
    def sources(self) -> Sequence[str]:
        """What was labelled: the --images of the run."""
        return self.fingerprint.get("images", ())

    @property
    def limits(self) -> Limits:
        """Sizes above which the run decoded no image."""
        return Limits(
            self.fingerprint.get("max_image_pixels", Limits.max_pixels),
            self.fingerprint.get("max_image_bytes", Limits.max_bytes),
        )

    def manifest(self) -> Manifest | None:
        """The manifest; None while the archive is being listed."""
        try:
            return read_manifest(self._folder / "manifest")
        except FileNotFoundError:
            return None

    def places(self, ids: Collection[int]) -> dict[int, pa.Table]:
        """The row of the manifest for each id, as the stage `Fetch` takes it."""
        manifest, listed = self.manifest(), self._folder / "manifest"
        found: dict[int, pa.Table] = {}
        for part in manifest.parts if manifest else ():
            rows = listed.read_table(part)
            rows = rows.filter(pc.is_in(rows["id"], pa.array(ids, pa.int64())))
            found |= {rows["id"][i].as_py(): rows.slice(i, 1) for i in range(len(rows))}
        return found

    def summary(self) -> Summary | None:
        """The contents of `summary.json`; None before the end of a labelling."""
        return Summary.read(self._folder)

    def label_files(self) -> list[LabelFile]:
        """The files of rows, by name."""
        return [
            LabelFile(info.path, (info.mtime_ns or 0) / 1e9)
            for info in sorted(_list(self._folder / "labels"), key=lambda info: info.base_name)
            if info.base_name.endswith(".parquet")
        ]

    def open(self, file: LabelFile) -> pq.ParquetFile:
        """Open a file of rows.

        Raises:
            FileNotFoundError: a run has merged it into a larger file.
            UserError: it is not readable Parquet.
        """
        try:
            # Statuses as a dictionary take half the time of strings.
            return pq.ParquetFile(
                self._folder.filesystem.open_input_file(file.path), read_dictionary=["status"]
            )
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException) as error:
            raise UserError(
                f"cannot read {file.path!r}: {reason_of(error)}; label again into another --output"
            ) from None

    def counts(self) -> list[FileCounts]:
        """The statuses of all rows, by file; a million rows take about a second.

        Raises:
            UserError: a run replaces files at each of `LOOKS` tries.
        """
        number = THREADS_ON_DISK if self._folder.is_local else THREADS_ELSEWHERE
        with ThreadPoolExecutor(number) as threads:
            for _ in range(LOOKS):
                with suppress(FileNotFoundError):  # merged into a larger file
                    return list(threads.map(self._count, self.label_files()))
        raise UserError(
            f"a run is rewriting the labels of {self.name!r}; look again when it is done"
        )

    def _count(self, file: LabelFile) -> FileCounts:
        with self.open(file) as rows:
            statuses = rows.read(columns=["status"], use_threads=False)["status"]
        pairs = pc.value_counts(statuses).to_pylist()
        return FileCounts(file.written, Counter({p["values"]: p["counts"] for p in pairs}))


def _list(folder: Folder) -> list[fs.FileInfo]:
    return folder.filesystem.get_file_info(fs.FileSelector(folder.path, allow_not_found=True))
