"""The trained weights that come with the framework. MODEL_CARD.md says what they were trained on and what they do."""

from pathlib import Path

from fsframework.plugins import Model

HASHES = {  # SHA-256 of the files beside this one, by the model's name
    "faceshifter-lfw-64": "dfc60073711b95c2fbfb21a7279d808a0f112d51d595564aa6d74278f2f8ba52",
}

MODELS = [Model(name, Path(__file__).with_name(f"{name}.safetensors"), sha256) for name, sha256 in HASHES.items()]
