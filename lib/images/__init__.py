"""Encoded bytes → upright RGB pixels, safely, and never more of them than are needed."""

from lib.images.decoder import decode, pixels_of
from lib.images.picture import ImageError, ImageStatus, Limits, Picture

__all__ = ["ImageError", "ImageStatus", "Limits", "Picture", "decode", "pixels_of"]
