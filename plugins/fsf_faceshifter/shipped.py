"""The trained weights that come with the framework. MODEL_CARD.md says what they were trained on and what they do."""

from pathlib import Path

from fsframework.plugins import Model

HASHES = {  # SHA-256 of the files beside this one, by the model's name
    "faceshifter-lfw-64": "3475b0ae5a35bcce5c8d164e2c4cfc3da276c96817810c24e8a8cee1f8f372e3",
}

MODELS = [Model(name, Path(__file__).with_name(f"{name}.safetensors"), sha256) for name, sha256 in HASHES.items()]
