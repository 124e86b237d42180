"""What native code writes by itself."""

import logging
import os

import pytest

from lib.common.native_output import native_errors_hidden


def test_only_native_code_is_hidden(capfd: pytest.CaptureFixture[str]) -> None:
    logger = logging.Logger("made meanwhile")
    with native_errors_hidden():
        os.write(2, b"hidden\n")
        logger.addHandler(logging.StreamHandler())
        logger.warning("within")
    logger.warning("behind")  # as TensorFlow's does, which is made when it is imported
    os.write(2, b"native again\n")
    assert capfd.readouterr().err == "within\nbehind\nnative again\n"
