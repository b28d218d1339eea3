"""The trained weights that come with the framework. MODEL_CARD.md says what they were trained on and what they do."""

from pathlib import Path

from fsframework.core.components import Model

HASHES = {  # SHA-256 of the files beside this one, by the model's name
    "faceshifter-lfw-64": "7a39b00296ec7f242fa988a951e5ab3bcb4716fdac63a17e5419992d8a6fc16c",
}

MODELS = [Model(name, Path(__file__).with_name(f"{name}.safetensors"), sha256) for name, sha256 in HASHES.items()]
