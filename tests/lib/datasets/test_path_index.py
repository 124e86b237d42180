import pickle

import pyarrow as pa

from lib.datasets.path_index import PathIndex

PATHS = ["02/b.jpg", "01/a.jpg", None, "02/b.jpg", "ü.jpg", "🙂.jpg", "z.jpg", ""]


def test_rows_of_a_path() -> None:
    index = PathIndex(pa.chunked_array([PATHS[:3], PATHS[3:]], pa.string()))
    for path in {path for path in PATHS if path is not None}:
        assert index.rows(path) == [row for row, other in enumerate(PATHS) if other == path]
        assert path in index
    for path in ("a.jpg", "02/b.jp", "02/b.jpgs", "\U0010ffff", "ÿ"):
        assert index.rows(path) == []
        assert path not in index


def test_no_paths() -> None:
    assert "a.jpg" not in PathIndex(pa.chunked_array([pa.nulls(2, pa.string())]))


def test_its_arrays_are_not_copied_into_the_pickle() -> None:
    buffers: list[pickle.PickleBuffer] = []
    index = PathIndex(pa.chunked_array([[f"folder/{number}.jpg" for number in range(10_000)]]))
    pickled = pickle.dumps(index, protocol=5, buffer_callback=buffers.append)
    assert len(pickled) < 2000
    assert pickle.loads(pickled, buffers=buffers).rows("folder/77.jpg") == [77]
