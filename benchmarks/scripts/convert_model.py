"""Give the recipe in a model's metadata the present key names: python benchmarks/scripts/convert_model.py OLD NEW.

For models that `fsf export` wrote before the keys were renamed, or before mtcnn's default `border` was 0.5: faces that
the frame cuts then get correct landmarks. Tensors stay as they are, byte for byte. Only safetensors files: export runs
and ONNX files again from them.
"""

import json
import struct
import sys
from pathlib import Path
from typing import Any

import yaml

COMPONENT_KEYS = {  # component -> {old option: new option}
    "aei-attributes": {"most": "max_channels", "full": "full_resolution"},
    "aad-generator": {"most": "max_channels", "recompute": "activation_checkpointing"},
    "hear-net": {"restore": "error_gate"},
    "hinge-gan": {"matching": "feature_matching_weight"},
    "reconstruction": {"of": "target", "over": "region"},
    "mask": {"of": "network"},
}
STAGE_KEYS = {
    "record": "cuda_graph",
    "free_gradients": "optimizer_in_backward",
    "embeddings": "precompute_embeddings",
}
VALUES: dict[tuple[str, str], Any] = {
    ("target", "draft"): "coarse",
    ("target", "image"): "final",
    ("region", "same"): "self",
    ("region", "batch"): "all",
    ("region", "known"): "valid",
    ("use", "hardest"): "hard-examples",
    ("precompute_embeddings", "once"): True,
    ("precompute_embeddings", "every-step"): False,
}


def converted(value: Any) -> Any:
    """Return a recipe, or a part of one, with present key names and values."""
    if isinstance(value, list):
        return [converted(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    stage_keys: dict[str, str] = STAGE_KEYS if "train" in value else {}
    names = COMPONENT_KEYS.get(value["use"], {}) if "use" in value else stage_keys
    renamed = {names.get(key, key): converted(entry) for key, entry in value.items()}
    if renamed.get("use") == "mtcnn" and renamed.get("border") == 0:
        renamed["border"] = 0.5
    return {
        key: VALUES.get((str(key), entry), entry) if isinstance(entry, str) else entry for key, entry in renamed.items()
    }


def convert(data: bytes) -> bytes:
    """Return the content of a safetensors file with the recipe in its metadata converted."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    recipe = yaml.safe_load(header["__metadata__"]["recipe"])
    header["__metadata__"]["recipe"] = yaml.safe_dump(converted(recipe), sort_keys=False, allow_unicode=True)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors stay aligned
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


if __name__ == "__main__":
    old, new = map(Path, sys.argv[1:])
    new.write_bytes(convert(old.read_bytes()))
    print(f"{new}: converted from {old}")
