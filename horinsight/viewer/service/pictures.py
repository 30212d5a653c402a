"""Pictures of visitors and samples, decoded once and prepared for a model."""

import base64
import hashlib
import io
from dataclasses import dataclass, field

import numpy as np
import streamlit as st
from PIL import Image
from torch import Tensor

from horinsight.data.images import DIGITS, image_label, read_image, sample_image
from horinsight.data.preprocess import image_batch, model_view
from horinsight.viewer.service.gate import GATE
from horinsight.viewer.service.model_pool import ModelKey, shared_model

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
MAX_UPLOAD_MB = 10
DISPLAY_SIDE = 448  # pixels: what the page shows is sharper than what the model takes


@dataclass(frozen=True)
class Source:
    """Where a picture comes from.

    Attributes:
        name: of the sample, or of the uploaded file.
        digest: SHA-256 of an upload; "" for a sample.
        content: of an upload.
    """

    name: str
    digest: str = ""
    content: bytes = field(default=b"", repr=False, compare=False)

    @classmethod
    def of_upload(cls, name: str, content: bytes) -> "Source":
        """An uploaded file."""
        return cls(name, hashlib.sha256(content).hexdigest(), content)

    @property
    def id(self) -> str:
        """Short, and different for different pictures, and for one picture that two visitors call by other names."""
        return hashlib.sha256(f"{self.digest} {self.name}".encode()).hexdigest()[:16] if self.digest else self.name


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as a model takes it, and as the page shows it.

    Attributes:
        id: of its source.
        name: of its source.
        label: with a hash of its pixels.
        batch: (1, 3, H, W), prepared.
        view: (H, W, 3) uint8, as the model sees it.
        src: the same crop at a higher resolution, as a data URL.
        said: whether a digit is shown whole; "" for other pictures.
    """

    id: str
    name: str
    label: str
    batch: Tensor
    view: np.ndarray
    src: str
    said: str = ""


def prepared(source: Source, key: ModelKey) -> Picture:
    """A picture for a model.

    Raises:
        ValueError: it cannot be read as a picture; one line that says why.
        BusyError: the gate was taken for too long.
    """
    return _prepared(source.name, source.digest, key, source.content)


@st.cache_resource(max_entries=64, show_spinner=False)
def _prepared(name: str, digest: str, key: ModelKey, _content: bytes) -> Picture:
    shared = shared_model(key)
    model = shared.replicas[0]
    with GATE.slot():  # a photograph of 24 megapixels takes some hundred megabytes while it is decoded
        image = read_image(_content, name, formats=FORMATS) if digest else sample_image(name)
        label = image_label(name, image)
        batch = image_batch(model, [image])
        scale = max(1, round(DISPLAY_SIDE / max(shared.image_size)))
        large = tuple(scale * side for side in shared.image_size)
        shown = model_view(model, image_batch(model, [image], image_size=large))[0]  # type: ignore[arg-type]
        said = (
            ""
            if digest or name not in DIGITS
            else digit_in_words(getattr(model, "pretrained_cfg", {}).get("crop_pct", 1))
        )
    return Picture(Source(name, digest).id, name, label, batch, model_view(model, batch)[0], _data_url(shown), said)


def digit_in_words(crop: float) -> str:
    """What a model is given of a digit, whose ink begins at the edge.

    Args:
        crop: the share of each side that the model's preparation leaves.

    Example:
        >>> digit_in_words(0.875)
        'The model is given the middle 88% of each side of the digit.'
    """
    if crop < 1:
        return f"The model is given the middle {crop:.0%} of each side of the digit."
    return "The whole digit: its 8 × 8 pixels have ink up to the edge."


def _data_url(pixels: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
