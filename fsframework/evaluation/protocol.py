"""Protocols: ways to measure that a paper can cite, as YAML files with a version.

A protocol takes the place of a recipe's `evaluation`. Its digest changes with anything that changes a figure.
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
    """What is measured on what, and the sentence to cite it by."""

    name: Name = Field(description="Lower-case words joined by dashes; the file is called so.")
    version: int = Field(ge=1, description="Grows with every change that changes figures.")
    cite: str = Field(min_length=1, description="What a paper says of it.")
    evaluation: Evaluation = Field(description="As in recipes.")

    @classmethod
    def load(cls, path_or_name: str) -> "Protocol":
        """Read and check a protocol: a YAML file, or the name of one that comes with the framework.

        Raises
        ------
        UserError
            There is none, or it is wrong: one line for each mistake.
        """
        path = named(path_or_name, shipped(), "protocol", "YAML")
        source = ConfigSource(yaml.load_yaml(path), str(path), {})
        try:
            return cls.model_validate(source.data)
        except ValidationError as error:
            raise source.explain(error, cls) from None

    def digest(self) -> str:
        """SHA-256 of what it says, as hexadecimal digits."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def sets(self) -> list[str]:
        """The override of a recipe that puts it in force."""
        return [f"{PLACE}={json.dumps(self.evaluation.model_dump(mode='json'))}"]

    def described(self, sets: Sequence[str]) -> dict[str, Any]:
        """What stands beside figures measured by it; `sets` are the overrides that came after it."""
        changed = [text for text in sets if text.partition("=")[0].partition(".")[0] == PLACE]
        about = {"name": self.name, "version": self.version, "sha256": self.digest(), "cite": self.cite.strip()}
        return {**about, "changed": changed}


def shipped() -> dict[str, Path]:
    """The protocols that come with the framework, by name."""
    return packed("fsf_protocols", ".yaml")
