"""Every component that is installed keeps the contract of its kind."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fsframework.core.part import Part, part
from fsframework.core.registry import component, registry
from fsframework.data.samples import portrait
from fsframework.testing.contract import check_component

# Options of those that need some, or are large or slow by default.
OPTIONS: dict[str, dict[str, Any]] = {
    "aad-generator": {"width": 0.125},
    "adain-generator": {"width": 0.125},
    "add-generator": {"width": 0.125},
    "aei-attributes": {"width": 0.125},
    "cat-generator": {"width": 0.125},
    "compressed-generator": {"width": 0.125},
    "dfl-df": {"people": 3, "width": 0.125},
    "dfl-encoder": {"width": 0.125},
    "dfl-liae": {"people": 3, "width": 0.125},
    "expression-error": {"estimator": {"use": "3ddfa-expression"}},
    "hear-net": {"width": 0.125},
    "hinge-gan": {"width": 8, "scales": 2},
    "id-retrieval": {"judge": {"use": "dlib-resnet"}},
    "iresnet": {"layers": 18},
    "known-pose": {"data": {"use": "rendered-heads", "people": 4, "pictures": 2}},
    "mixed": {
        "parts": {
            "heads": {"data": {"use": "rendered-heads", "people": 4, "pictures": 2}, "share": 2},
            "orl": {"data": {"use": "orl"}},
        }
    },
    "occluded": {"pool": 16},
    "occlusion": {"data": {"use": "occluded", "pool": 16, "data": {"use": "orl"}}},
    "person-decoders": {"people": 3, "width": 0.125, "mask": True},
    "projected-gan": {"width": 8},
    "rendered-heads": {"people": 4, "pictures": 2},
    "shared-encoder": {"width": 0.125},
    "spade-generator": {"width": 0.125},
    "verification": {"judge": {"use": "dlib-resnet"}, "pairs": 20},
}
# Of those that read files which cannot be shipped: option -> file in the shared folder.
FILES: dict[str, dict[str, str]] = {
    "3ddfa": {"weights": "3ddfa_v2_mb05_120x120.pt", "statistics": "3ddfa_v2_param_mean_std.npz"},
    "3ddfa-expression": {"weights": "3ddfa_v2_mb05_120x120.pt", "statistics": "3ddfa_v2_param_mean_std.npz"},
    "mobilefacenet": {"weights": "mobilefacenet_casia_068.pt"},
    "mobilefacenet-112": {"weights": "mobilefacenet_ms1m.safetensors"},
    "fsanet": {"weights": "fsanet_1x1.onnx", "variance_weights": "fsanet_var.onnx"},
    "retinaface": {"weights": "retinaface_mobilenet025.pt"},
}
FILES["expression-error"] = FILES["3ddfa-expression"]
# Of those that take what certain others make.
ENCODERS: dict[str, dict[str, Part]] = {
    "aad-generator": {"attributes": part("attribute-encoders", "aei-attributes", width=0.125)},
    "dfl-df": {"attributes": part("attribute-encoders", "dfl-encoder", width=0.125)},
    "dfl-liae": {"attributes": part("attribute-encoders", "dfl-encoder", width=0.125)},
    "face-mesh": {
        "identity": part("identity-encoders", "face-texture"),
        "attributes": part("attribute-encoders", "picture"),
    },
    "person-decoders": {"attributes": part("attribute-encoders", "shared-encoder", width=0.125)},
}
for name in ("adain", "add", "cat", "compressed", "spade"):
    ENCODERS[f"{name}-generator"] = ENCODERS["aad-generator"]
ELSEWHERE = {
    "face-folder": "needs a folder of pictures: below",
    "face-masks": "needs a folder of pictures and masks: below",
    "ffpp": "needs FaceForensics++: test_ffpp.py",
    "swapped": "needs a model of the same size: test_reversed.py",
    "lpips": "needs torchvision's weights: test_measures.py",
    "speed": "starts processes for minutes: test_speed.py",
}
COMPONENTS = [
    pytest.param(registered.cls, id=f"{kind}-{name}")
    for kind, named in registry().components.items()
    for name, registered in sorted(named.items())
    if registered.plugin.startswith("fsf_") and registered.cls.__module__.startswith("fsf_")
]


@pytest.mark.parametrize("cls", COMPONENTS)
def test_component_keeps_its_contract(cls: type[Any], request: pytest.FixtureRequest) -> None:
    if cls.name in ELSEWHERE:
        pytest.skip(ELSEWHERE[cls.name])
    options = dict(OPTIONS.get(cls.name, {}))
    if cls.name in FILES:
        folder: Path = request.getfixturevalue("shared") / "weights"
        files = {key: str(folder / file) for key, file in FILES[cls.name].items()}
        options = {"estimator": {"use": "3ddfa-expression", **files}} if cls.name == "expression-error" else files
    check_component(cls, networks=ENCODERS.get(cls.name), **options)


def test_a_folder_of_pictures_keeps_the_contract(tmp_path: Path) -> None:
    for person in range(6):
        (tmp_path / f"person{person}").mkdir()
        for picture in range(2):
            frame = np.roll(portrait(), 9 * person + picture, axis=1)
            Image.fromarray(frame).save(tmp_path / f"person{person}" / f"{picture}.png")
    cls = component("datasets", "face-folder")
    check_component(cls, root=str(tmp_path), test_share=0.5, cache=str(tmp_path / "cache"))


def test_pictures_with_masks_keep_the_contract(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    for person in range(6):
        (tmp_path / f"person{person}").mkdir()
        frame = np.roll(portrait(), 9 * person, axis=1)
        Image.fromarray(frame).save(tmp_path / f"person{person}" / f"{person}.png")
        Image.fromarray((frame[..., 0] > 128).astype(np.uint8)).save(tmp_path / "masks" / f"{person}.png")
    cls = component("datasets", "face-masks")
    check_component(cls, root=str(tmp_path), test_share=0.5, cache=str(tmp_path / "cache"))


def test_nothing_is_left_out_that_could_be_checked() -> None:
    names = {name for named in registry().components.values() for name in named}
    assert names >= OPTIONS.keys() | FILES.keys() | ENCODERS.keys() | ELSEWHERE.keys()
    assert len(ELSEWHERE) == 6
