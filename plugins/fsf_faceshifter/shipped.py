"""Trained weights in the package. MODEL_CARD.md documents their training data and results."""

from pathlib import Path

from fsframework.core.components import Model

HASHES = {  # SHA-256 of the files NAME.safetensors in this folder, by the model's name
    "faceshifter-lfw-128": "3d84c3c8559e244aa25f873fad20e8186b09108d047dfaa32aa435c303a892e5",
    "faceshifter-lfw-64": "7a39b00296ec7f242fa988a951e5ab3bcb4716fdac63a17e5419992d8a6fc16c",
}

MODELS = [Model(name, Path(__file__).with_name(f"{name}.safetensors"), sha256) for name, sha256 in HASHES.items()]
