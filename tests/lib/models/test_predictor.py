"""The average over a face and its mirror image, and a memory that is too full for a network."""

from pathlib import Path

import numpy as np
import pytest

from lib import Labeller
from lib.common.errors import UserError
from lib.models.bundle import read_bundle
from lib.models.predictor import Mirrored, load_predictor
from lib.storage.folder import folder

AGE, GENDER = "age", "gender"


def test_a_face_and_its_mirror_image_are_averaged(model: Path) -> None:
    bundle = read_bundle(folder(str(model)))
    plain = load_predictor(bundle, (AGE, GENDER), threads=1)
    crops = np.random.default_rng(0).integers(0, 255, (5, 32, 32, 3), np.uint8)
    mirrored = Mirrored(plain)(crops)
    for task, seen in plain(crops).items():
        both = (seen + plain(crops[:, :, ::-1])[task]) / 2
        np.testing.assert_allclose(mirrored[task], both, atol=1e-6)
        assert np.abs(both - seen).max() > 1e-3
        assert mirrored[task].dtype == np.float32
        assert Mirrored(plain)(crops[:0])[task].shape == (0, *seen.shape[1:])


def test_labels_do_not_depend_on_which_way_round_a_face_is(model: Path) -> None:
    face = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    images = [face, np.ascontiguousarray(face[:, ::-1])]
    (one,), (other,) = Labeller(model, detector="none", mirror=True).label_batch(images)
    assert one.age == pytest.approx(other.age, abs=1e-3)
    (one,), (other,) = Labeller(model, detector="none").label_batch(images)
    assert one.age != pytest.approx(other.age, abs=1e-2)


def test_a_full_memory_is_no_fault_of_the_network(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    from lib.models import network_file

    def built(*_: object) -> None:
        raise tf.errors.InternalError(None, None, "Dst tensor is not initialized.")

    monkeypatch.setattr(network_file, "_built", built)
    (file, *_) = read_bundle(model).networks.values()
    with pytest.raises(
        UserError, match=r"^there is no memory left for the network '.*\.keras': stop"
    ):
        network_file.load_network(file)
