"""Trained weights in the package. MODEL_CARD.md documents their training data and results."""

from pathlib import Path

from fsframework.core.components import Model

HASHES = {  # SHA-256 of the files NAME.safetensors in this folder, by the model's name
    "faceshifter-mixed-128": "e3a9fec01f3cd3b369e919e5002202af2c9544340737e2427cf5ed5c054b77d4",
    "faceshifter-lfw-128": "5405d367da3ceaa99d10ea860bf0676e29c0e3338608608a827aa4c95b42ed43",
    "faceshifter-lfw-64": "22f08ff94fbb8b393e9bcccbec8ff3d747fbee2581cec72f498efd414bc6daaf",
}

MODELS = [Model(name, Path(__file__).with_name(f"{name}.safetensors"), sha256) for name, sha256 in HASHES.items()]
