"""Memory profiles: what a request gives up of speed so that it takes less of its device's memory.

| profile | networks, at first | networks, at most | autoencoder |
| --- | --- | --- | --- |
| `auto` | all stay | in blocks | whole; in tiles once memory has run out for that size |
| `highest-speed` | all stay | all stay | whole |
| `balanced` | one at a time | in blocks | whole |
| `lowest-memory` | in blocks | in blocks | in tiles |

Where networks are moves no bit of a picture: the same kernels run on the same numbers. Tiles do: an autoencoder
normalises over all that it sees. What was decoded in tiles therefore has an exactness key of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum


class Offload(IntEnum):
    """Which networks of the model that computes are on the device."""

    NONE = 0
    """All of them."""
    COMPONENT = 1
    """The one that computes; the others come when they are used."""
    BLOCKS = 2
    """Of the one that computes the block that does, and the one after it."""

    @property
    def word(self) -> str:
        """As receipts name it."""
        return self.name.lower()


class Tiles(Enum):
    """When an autoencoder computes in tiles."""

    NEVER = "never"
    WHEN_SHORT = "when memory has run out for that size"
    ALWAYS = "always"


@dataclass(frozen=True)
class Profile:
    """A row of the table above."""

    first: Offload
    most: Offload
    tiles: Tiles


AUTO = "auto"
PROFILES = {
    AUTO: Profile(Offload.NONE, Offload.BLOCKS, Tiles.WHEN_SHORT),
    "highest-speed": Profile(Offload.NONE, Offload.NONE, Tiles.NEVER),
    "balanced": Profile(Offload.COMPONENT, Offload.BLOCKS, Tiles.NEVER),
    "lowest-memory": Profile(Offload.BLOCKS, Offload.BLOCKS, Tiles.ALWAYS),
}
"""By the names that `memoryProfile` takes."""
