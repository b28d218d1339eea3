"""Evaluation protocols: versioned YAML files that a paper can cite.

A protocol replaces a recipe's `evaluation`. Its digest changes with every setting that changes a metric.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from fsframework.recipe.overrides import ConfigSource
from fsframework.recipe.schema import Evaluation, Keys, Name
from fsframework.utils import yaml
from fsframework.utils.files import named, packed

PLACE = "evaluation"  # the recipe's key that a protocol fills


class Protocol(Keys):
    """An evaluation with a name, a version and a sentence for citations."""

    name: Name = Field(description="Lower-case words joined by dashes; also the name of the file.")
    version: int = Field(ge=1, description="Increased by every change that changes metrics.")
    cite: str = Field(min_length=1, description="Sentence that describes the protocol in a paper.")
    evaluation: Evaluation = Field(description="The evaluation, as in recipes.")

    @classmethod
    def load(cls, path_or_name: str) -> "Protocol":
        """Read and check a protocol: a YAML file, or the name of one that comes with the framework.

        Raises
        ------
        UserError
            The protocol does not exist, or is invalid: one line for each error.
        """
        path = named(path_or_name, shipped(), "protocol", "YAML")
        source = ConfigSource(yaml.load_yaml(path), str(path), {})
        try:
            return cls.model_validate(source.data)
        except ValidationError as error:
            raise source.explain(error, cls) from None

    def digest(self) -> str:
        """Return the SHA-256 of its content as hexadecimal digits."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def sets(self) -> list[str]:
        """Return the recipe override that applies the protocol."""
        return [f"{PLACE}={json.dumps(self.evaluation.model_dump(mode='json'))}"]

    def described(self, sets: Sequence[str]) -> dict[str, Any]:
        """Return the description to store with metrics; `sets` are the overrides applied after the protocol."""
        changed = [text for text in sets if text.partition("=")[0].partition(".")[0] == PLACE]
        about = {"name": self.name, "version": self.version, "sha256": self.digest(), "cite": self.cite.strip()}
        return {**about, "changed": changed}


def shipped() -> dict[str, Path]:
    """Return the paths of the bundled protocols by name."""
    return packed("fsf_protocols", ".yaml")
