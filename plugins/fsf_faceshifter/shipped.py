"""The trained weights that come with the framework. MODEL_CARD.md says what they were trained on and what they do."""

from pathlib import Path

from fsframework.plugins import Model

HASHES = {  # SHA-256 of the files beside this one, by the model's name
    "faceshifter-lfw-64": "8505279138992a5ef68dc903a8a7d840f821af2f5c3de1d1285e43759c7c89b2",
}

MODELS = [Model(name, Path(__file__).with_name(f"{name}.safetensors"), sha256) for name, sha256 in HASHES.items()]
