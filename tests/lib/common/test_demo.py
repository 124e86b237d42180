from pathlib import Path

import pytest

from lib.archive.archive import Archive
from lib.common.demo import EXPECTED, make_demo
from lib.faces.mtcnn import Mtcnn
from lib.images import ImageError, Limits, decode
from lib.storage.uris import local_path

FACES = {"two_faces.jpg": 2, "no_face.jpg": 0}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    make_demo(str(folder))
    return folder


def test_it_holds_the_files_expected_and_all_are_listed(demo: Path) -> None:
    listed = [local_path(entry.uri).name for entry in Archive([str(demo)])]
    assert listed == sorted(EXPECTED)
    assert {path.name for path in demo.iterdir()} == set(EXPECTED)


def test_it_is_the_same_every_time(demo: Path, tmp_path: Path) -> None:
    make_demo(str(tmp_path))
    for name in EXPECTED:
        assert (tmp_path / name).read_bytes() == (demo / name).read_bytes()


def test_every_file_is_what_it_is_expected_to_be(demo: Path) -> None:
    detector = Mtcnn()
    for name, status in EXPECTED.items():
        data = (demo / name).read_bytes()
        if status == "decode_error":
            with pytest.raises(ImageError):
                decode(data, Limits())
            continue
        picture = decode(data, Limits(), at_least=detector.canvas)
        (found,) = detector.detect([picture.pixels])
        assert len(found) == FACES.get(name, 1), name


def test_the_rotated_one_stands_upright(demo: Path) -> None:
    picture = decode((demo / "rotated_by_exif.jpg").read_bytes(), Limits())
    assert (picture.width, picture.height) == (512, 600)
