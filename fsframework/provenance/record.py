"""The record of a result's origin."""

import secrets
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def new_payload() -> int:
    """32 random bits for a watermark."""
    return secrets.randbits(32)


@dataclass(frozen=True)
class ProvenanceRecord:
    """What made a result: the model, SHA-256 of its tensors and of its recipe, and the watermark of this result.

    `pasting` says in words how it was pasted, and `precision` what the networks computed in, if not as by default.
    """

    model: str | None
    weights_sha256: str | None
    recipe_sha256: str | None
    consent: str | None = None
    pasting: str | None = None
    precision: str | None = None
    watermark: int = field(default_factory=new_payload)

    def facts(self) -> dict[str, str]:
        """What is known, as words."""
        known = {
            "model": self.model,
            "weights_sha256": self.weights_sha256,
            "recipe_sha256": self.recipe_sha256,
            "pasting": self.pasting,
            "precision": self.precision,
            "version": metadata.version("fsframework"),
        }
        return {key: value for key, value in known.items() if value is not None}
