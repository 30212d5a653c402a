"""The kernels of a block's channels, as a value: it is read, drawn and reported without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from horinsight.results import Provenance, Result

RESPONSE_SIDE = 28  # of the response of a kernel with borders


@dataclass(frozen=True, eq=False, repr=False)
class ChannelFilters(Result):
    """The kernel of each channel of a block, and how much its weights adapt on one picture.

    Attributes:
        kernels: kind, such as "7x7" or "14x14 circular" → (channels, rows, columns) by offset j - i, 0 in the middle.
        channels: kind → (channels,), which channels of the block they are.
        location_adaptivity: (C,) of each channel by itself.
        location_deviation: (C,) likewise, in units of h_ij.
        norms: (C,) of the kernels.
        name: of the block.
        convention: what was computed, in words.
        provenance: model, weights and images, where known.
    """

    kernels: Mapping[str, np.ndarray]
    channels: Mapping[str, np.ndarray]
    location_adaptivity: np.ndarray
    location_deviation: np.ndarray
    norms: np.ndarray
    name: str = ""
    convention: Mapping[str, str] = field(default_factory=dict)
    provenance: Provenance | None = None

    @property
    def adapts(self) -> bool:
        """Whether any channel's weights change with the place."""
        return bool((self.location_deviation > 0).any())

    def kernel(self, channel: int) -> tuple[str, np.ndarray]:
        """Kind and kernel of a channel, (rows, columns)."""
        for kind, places in self.channels.items():
            found = np.flatnonzero(places == channel)
            if len(found):
                return kind, self.kernels[kind][found[0]]
        raise ValueError(f"Expected a channel from 0 to {len(self.norms) - 1}, got {channel}.")

    def response(self, channel: int) -> np.ndarray:
        """|fft2| of a channel's kernel, zero frequency in the middle; on 28x28 at least for one with borders."""
        kind, kernel = self.kernel(channel)
        size = kernel.shape if kind.endswith("circular") else [max(RESPONSE_SIDE, side) for side in kernel.shape]
        found: np.ndarray = np.fft.fftshift(np.abs(np.fft.fft2(kernel, s=tuple(size))))
        return found

    def _columns(self) -> dict[str, Any]:
        """A row per channel."""
        kinds = {int(place): kind for kind, places in self.channels.items() for place in places}
        return {
            "name": self.name,
            "channel": np.arange(len(self.norms)),
            "kernel": [kinds[place] for place in range(len(self.norms))],
            "location_adaptivity": self.location_adaptivity,
            "location_deviation": self.location_deviation,
            "norm": self.norms,
        }
