"""The provenance record of a result."""

import secrets
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def new_payload() -> int:
    """Return a random 32-bit watermark payload."""
    return secrets.randbits(32)


@dataclass(frozen=True)
class ProvenanceRecord:
    """The origin of a result: model, SHA-256 of its tensors and of its recipe, and this result's watermark.

    `pasting` describes the non-default options of compositing, and `precision` a non-default numeric precision.
    """

    model: str | None
    weights_sha256: str | None
    recipe_sha256: str | None
    consent: str | None = None
    pasting: str | None = None
    precision: str | None = None
    watermark: int = field(default_factory=new_payload)

    def facts(self) -> dict[str, str]:
        """Return the fields that are set, and the framework's version, as strings."""
        values = {
            "model": self.model,
            "weights_sha256": self.weights_sha256,
            "recipe_sha256": self.recipe_sha256,
            "pasting": self.pasting,
            "precision": self.precision,
            "version": metadata.version("fsframework"),
        }
        return {key: value for key, value in values.items() if value is not None}
