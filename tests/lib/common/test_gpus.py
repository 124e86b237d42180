"""GPUs that are there, and why they cannot be used; no machine of the tests has one."""

from pathlib import Path

import pytest

from lib.common import gpus


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(gpus, "DEVICES", tmp_path)


def test_without_a_device_there_is_nothing_to_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr(gpus, "DEVICES", tmp_path)
    assert gpus.usable_gpus() == (0, None)


class Driver:
    """Stands in for CUDA's driver."""

    def __init__(self, code: int) -> None:
        self.code = code

    def cuInit(self, flags: int) -> int:  # noqa: N802 - CUDA's name
        return self.code


@pytest.mark.parametrize(
    ("code", "visible", "reason"),
    [
        (803, None, "of another version"),
        (999, None, "CUDA error 999"),
        (100, "-1", "CUDA_VISIBLE_DEVICES hides it"),
    ],
)
@pytest.mark.usefixtures("device")
def test_a_driver_that_does_not_start(
    code: int, visible: str | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(gpus.ctypes, "CDLL", lambda name: Driver(code))
    count, said = gpus.usable_gpus()
    assert count == 0
    assert reason in str(said)


@pytest.mark.usefixtures("device")
def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(gpus.ctypes, "CDLL", missing)
    assert gpus.usable_gpus() == (0, "the library of its driver, libcuda.so.1, is missing")
    assert gpus.memory_of_gpu() == gpus.SMALL_GPU
    monkeypatch.setattr(gpus, "_count", lambda: (1, None))
    monkeypatch.setattr(gpus, "_has_libraries", lambda: False)
    assert "pip install 'tensorflow[and-cuda]'" in str(gpus.usable_gpus()[1])


def test_each_process_sees_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus.visible_devices(2) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,6")
    assert gpus.visible_devices(2) == ["3", "5"]
    assert gpus.visible_devices(0) == []


def test_tensorflow_says_that_memory_is_full() -> None:
    import tensorflow as tf

    with pytest.raises(tf.errors.OpError) as full:
        tf.random.uniform((1 << 22, 1 << 22))  # 64 TiB
    assert gpus.memory_is_full(full.value)
    assert gpus.memory_is_full(
        tf.errors.InternalError(None, None, "Dst tensor is not initialized.")
    )
    assert not gpus.memory_is_full(ValueError("another shape"))
