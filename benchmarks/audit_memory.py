"""Memory and time of an audit besides its models: from what these say of made-up faces to all results.

    python -m benchmarks.audit_memory

Two data sets, one as large as IMDB-WIKI's larger part, each judged in a process of its own. Labelling
streams through the pools of jobs.score, which keep no face either.
"""

import resource
import tempfile
import time
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tyro

from lib.audit.faces import AuditedFaces
from lib.audit.opinions import OPINION_SCHEMA, Opinions
from lib.audit.page import html
from lib.audit.results import Audit, write_results
from lib.audit.suspicion import suspicion
from lib.datasets.labelled_faces import FACE_SCHEMA
from lib.storage.folder import folder

IMAGE_BYTES = 5_000
_ROWS = 512


@dataclass(frozen=True)
class Options:
    """Judge made-up faces.

    Attributes:
        faces: Of the two data sets.
    """

    faces: tuple[int, int] = (50_000, 460_723)


def main() -> None:
    """Judge both, and print what a face more costs."""
    options = tyro.cli(Options)
    peaks = []
    for count in options.faces:
        with tempfile.TemporaryDirectory() as temporary:
            data = Path(temporary, "faces")
            make(data, count)
            with get_context("spawn").Pool(1) as pool:
                seconds, peak = pool.apply(judge, (data, Path(temporary, "audit")))
        peaks.append(peak)
        print(f"{count:,} faces: {seconds:.1f} s, {peak / 2**20:,.0f} MiB at most")
    more = (peaks[1] - peaks[0]) / (options.faces[1] - options.faces[0])
    print(f"a face more takes {more:.0f} bytes; its picture has {IMAGE_BYTES:,}")


def make(data: Path, count: int) -> None:
    """Write faces with random labels, and bytes for pictures."""
    rng = np.random.default_rng(0)
    target = data / "split=train"
    target.mkdir(parents=True)
    with pq.ParquetWriter(target / "part-00000.parquet", FACE_SCHEMA) as writer:
        for start in range(0, count, _ROWS):
            rows = range(start, min(start + _ROWS, count))
            age = rng.integers(0, 100, len(rows)).astype(np.int16)
            columns = {
                "image": [rng.bytes(IMAGE_BYTES) for _ in rows],
                **dict.fromkeys(("age", "age_low", "age_high"), age),
                "gender": rng.choice(["female", "male"], len(rows)),
                "source": ["made"] * len(rows),
                "source_row": rows,
                "sha256": [f"{row:064x}" for row in rows],
            }
            nothing = {
                name: pa.nulls(len(rows), FACE_SCHEMA.field(name).type)
                for name in FACE_SCHEMA.names
            }
            writer.write_table(pa.table(nothing | columns, schema=FACE_SCHEMA))


def judge(data: Path, output: Path) -> tuple[float, int]:
    """All that follows the models; gives the seconds, and the peak of this process's memory in bytes."""
    started = time.monotonic()
    faces = AuditedFaces(folder(data))
    labels = faces.labels(3)
    rng = np.random.default_rng(1)
    count = len(labels)
    numbers = {name: rng.random(count, np.float32) for name in OPINION_SCHEMA.names[3:]}
    columns = {
        "place": np.arange(count),
        "picture": rng.integers(0, count, count),
        "faces_found": rng.integers(0, 3, count).astype(np.int16),
        **numbers,
    }
    opinions = Opinions.none(count)
    opinions.add(pa.table(columns, schema=OPINION_SCHEMA))
    del numbers, columns
    audit = Audit(faces, labels, opinions, suspicion(labels, opinions), ["made up"], 3)
    html(audit, write_results(audit, folder(output)))
    return time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
