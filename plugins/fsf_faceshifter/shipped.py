"""The trained weights that come with the framework. MODEL_CARD.md says what they were trained on and what they do."""

from pathlib import Path

from fsframework.plugins import Model

HASHES: dict[str, str] = {}  # SHA-256 of the files beside this one, by the model's name

MODELS = [Model(name, Path(__file__).with_name(f"{name}.safetensors"), sha256) for name, sha256 in HASHES.items()]
