"""Bundles on a disk and in a bucket."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.common.errors import UserError
from lib.models.bundle import CARD, Bundle, read_bundle
from lib.storage.folder import Folder, folder
from tests.bundles import make_plain_bundle
from tests.s3_server import S3Server


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_plain_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def stored(made: Bundle, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A bundle in a bucket; this machine has no copy."""
    s3.bucket("models")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    bucket = folder(f"s3://models/{tmp_path.name}", s3.options)
    bucket.upload(made.folder, last=CARD)
    return bucket


def change_card(bucket: Folder, change: Callable[[dict[str, Any]], object]) -> None:
    card = json.loads(bucket.read(CARD))
    change(card)
    bucket.write(CARD, json.dumps(card).encode())


def test_a_bundle_in_a_bucket_is_copied_once(made: Bundle, stored: Folder) -> None:
    bundle = read_bundle(stored)
    assert bundle.digest == made.digest
    assert bundle.folder != made.folder
    assert bundle.networks["age"].read_bytes() == made.networks["age"].read_bytes()
    for name in stored.files(".keras"):
        stored.delete(name)
    assert bundle.here() == bundle == read_bundle(stored)


def test_a_bundle_that_was_replaced_is_not_mixed_with_the_old_one(stored: Folder) -> None:
    bundle = read_bundle(stored)
    change_card(stored, lambda card: card.update(name="another"))
    with pytest.raises(UserError, match="was replaced; start again"):
        bundle.here()


def test_a_damaged_copy_is_refused_and_mended(made: Bundle, stored: Folder) -> None:
    good = stored.read("age.keras")
    stored.write("age.keras", b"damaged")
    with pytest.raises(UserError, match=r"age\.keras' is damaged or was changed"):
        read_bundle(stored)
    stored.write("age.keras", good)
    bundle = read_bundle(stored)
    assert bundle.digest == made.digest
    bundle.networks["age"].unlink()  # as what tidies temporary files does
    assert read_bundle(stored).networks["age"].read_bytes() == good


def test_a_file_outside_of_the_bundle_is_refused(stored: Folder) -> None:
    change_card(stored, lambda card: card["networks"]["age"].update(file="../age.keras"))
    with pytest.raises(UserError, match="not in the folder of the card"):
        read_bundle(stored)


@pytest.mark.parametrize("where", ["s3://models/nothing", "/no/such/model"])
def test_no_bundle_is_said(where: str, s3: S3Server) -> None:
    s3.bucket("models")
    options = s3.options if "://" in where else None
    with pytest.raises(UserError, match=f"no model at '{where}': cannot read card.json"):
        read_bundle(folder(where, options))
