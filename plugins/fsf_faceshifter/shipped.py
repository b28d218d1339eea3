"""The trained weights that come with the framework. MODEL_CARD.md says what they were trained on and what they do."""

from pathlib import Path

from fsframework.core.registry import Model

HASHES = {  # SHA-256 of the files beside this one, by the model's name
    "faceshifter-lfw-64": "df4532ed326752190dc2373d8734f75a00a88d61349f28dc3f0f76184508d36c",
}

MODELS = [Model(name, Path(__file__).with_name(f"{name}.safetensors"), sha256) for name, sha256 in HASHES.items()]
