import numpy as np
import pytest
import tensorflow as tf

from lib.network_input import Pixels, network_input

BGR = Pixels("bgr", scale=1.0, mean=(93.5940, 104.7624, 129.1863), std=1.0)


@pytest.mark.parametrize("pixels", [Pixels(), BGR])
def test_training_scoring_and_conversion_agree(pixels: Pixels) -> None:
    """Crops in 0..255 and in 0..1, as tensors and as arrays, become the same input."""
    crops = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(np.float32)
    channels = crops if pixels.channels == "rgb" else crops[..., ::-1]
    expected = (channels.astype(np.float64) * pixels.scale - pixels.mean) / pixels.std
    converted = network_input(crops, pixels)
    assert converted.dtype == np.float32
    np.testing.assert_allclose(converted, expected, atol=1e-4)
    scored = network_input(tf.constant(crops), pixels).numpy()
    np.testing.assert_allclose(scored, converted, atol=1e-6)
    trained = network_input(tf.constant(crops / np.float32(255)), pixels, white=1.0).numpy()
    np.testing.assert_allclose(trained, converted, atol=1e-4)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [({"channels": "gbr"}, "not 'gbr'"), ({"mean": [1.0, 2.0]}, "one number or three")],
)
def test_impossible_pixels_are_refused(values: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Pixels(**values)  # type: ignore[arg-type]
