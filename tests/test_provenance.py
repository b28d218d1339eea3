"""What results say of themselves, what `fsf verify` makes of it, and what happens when somebody meddles."""

import datetime
import io
import json
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image
from skimage import data

from fsframework.cli import main
from fsframework.core.errors import UserError
from fsframework.media.image_io import SOURCE_TYPE, is_marked, read_image, write_image
from fsframework.provenance import c2pa as provenance
from fsframework.provenance import certificate as certificates
from fsframework.provenance import ledger
from fsframework.provenance import verify as verification
from fsframework.provenance.c2pa import media_type, sign
from fsframework.provenance.ledger import ledger_file, lookup
from fsframework.provenance.options import ProvenanceOptions, attach_manifest, mark_frame, write_swap
from fsframework.provenance.record import ProvenanceRecord
from fsframework.provenance.verify import Manifest, Report, lines, verify
from fsframework.provenance.watermark import read
from fsframework.utils.files import replacing, sha256_of

ROOT = Path(__file__).parents[1]
SUFFIXES = [".jpg", ".png", ".webp", ".mp4"]
VIDEOS = {".mp4": "mp4", ".mov": "mov"}  # and the format's name
PICTURE = data.astronaut()[:256, :320]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user who has made nothing yet."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    for name in (certificates.CERTIFICATE, certificates.KEY):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home" / "fsframework"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    write_image(tmp_path / "somebody.jpg", PICTURE, synthetic=False)
    return tmp_path / "somebody.jpg"


def origin(**changes: Any) -> ProvenanceRecord:
    return ProvenanceRecord(**{"model": "toy", "weights_sha256": "ab" * 32, "recipe_sha256": "cd" * 32, **changes})


def film(path: Path, frames: list[np.ndarray]) -> None:
    with av.open(str(path), "w", format=VIDEOS.get(path.suffix, "mp4")) as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "16"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())


def made(
    folder: Path,
    suffix: str,
    target: Path,
    by: ProvenanceRecord | None = None,
    sources: Sequence[Path] = (),
    **marks: Any,
) -> Path:
    """A result, as swaps of pictures and of videos write it."""
    out, by, marking = folder / f"out{suffix}", by or origin(), ProvenanceOptions(**marks)
    if suffix not in VIDEOS:
        write_swap(out, PICTURE, by, marking, target, sources)
        return out
    with replacing(out) as temporary:
        film(temporary, [mark_frame(np.roll(PICTURE, 3 * step, axis=1), marking, by.watermark) for step in range(12)])
        attach_manifest(temporary, out, by, marking, target, sources)
    return out


FIGURES = (
    r"(?P<TIME>\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d))|(?P<MANIFEST>urn:\S+[0-9a-f])"
    r"|(?P<STRENGTH>(?<=strength )\d\.\d\d)|(?P<PAYLOAD>(?<=watermark: )[0-9a-f]{8}|(?<=watermark )[0-9a-f]{8})"
)


def known(report: Report) -> Manifest:
    assert report.manifest is not None
    return report.manifest


# Every format


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_is_intact(tmp_path: Path, target: Path, suffix: str) -> None:
    by = origin()
    out = made(tmp_path, suffix, target, by)
    report = verify(out)
    manifest = known(report)
    assert report.verdict == "intact" and manifest.problems == [] and report.notes == []
    assert manifest.made_here and manifest.synthetic and manifest.claim is not None and "fsframework" in manifest.claim
    assert manifest.facts == {**by.facts(), "watermark": f"{by.watermark:08x}"}
    assert [each["relationship"] for each in manifest.ingredients] == ["parentOf"]
    assert report.xmp and report.watermark is not None and report.watermark.payload == f"{by.watermark:08x}"
    (entry,) = report.ledger
    assert entry["file"] == str(out) and entry["model"] == "toy" and entry["manifest"] == manifest.label
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", out.name, "somebody.jpg"]  # nothing is left
    if suffix == ".mp4":
        assert report.watermark.looked == 10 and report.watermark.read >= 9
        with av.open(str(out)) as container:
            assert sum(1 for _ in container.decode(video=0)) == 12
    else:
        assert is_marked(out) and psnr(read_image(out), PICTURE) > 38


def test_a_mov_is_intact(tmp_path: Path, target: Path) -> None:
    out = made(tmp_path, ".mov", target)
    report = verify(out)
    assert media_type(out) == "video/quicktime" and report.verdict == "intact" and report.xmp
    altered = bytearray(out.read_bytes())
    altered[len(altered) // 2] ^= 1
    out.write_bytes(altered)
    assert verify(out).verdict == "altered"


def test_kinds_of_files_without_room_for_a_manifest_are_refused_in_time(
    tmp_path: Path, expect_error: Callable[..., Any]
) -> None:
    ProvenanceOptions().check(*(tmp_path / f"a{suffix}" for suffix in (".JPG", ".png", ".webp", ".mp4", ".mov")))
    with expect_error("a.mkv: "):
        ProvenanceOptions().check(tmp_path / "a.mkv")
    ProvenanceOptions(provenance=False).check(tmp_path / "a.mkv")


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2)))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_flipped_byte_is_seen(tmp_path: Path, target: Path, suffix: str) -> None:
    content = made(tmp_path, suffix, target).read_bytes()
    rng = np.random.default_rng(0)
    # The manifest of a WebP stands at its end.
    for place in rng.integers(1000, 9000, 8) if suffix == ".webp" else rng.integers(len(content) // 2, len(content), 8):
        altered = bytearray(content)
        altered[place] ^= 1
        path = tmp_path / f"altered{suffix}"
        path.write_bytes(altered)
        report = verify(path)
        assert report.verdict == "altered", place
        assert any("mismatch" in problem for problem in known(report).problems), place


def test_no_flipped_byte_anywhere_makes_a_traceback(tmp_path: Path, target: Path) -> None:
    """Within the manifest it may spoil what is read, and in the padding of the signature nothing at all."""
    content = made(tmp_path, ".jpg", target).read_bytes()
    path = tmp_path / "altered.jpg"
    seen = set()
    for place in range(0, 9000, 97):
        altered = bytearray(content)
        altered[place] ^= 1 << place % 8
        path.write_bytes(altered)
        try:
            report = verify(path)
        except UserError:
            continue
        assert lines(report) and json.dumps(report.plain())
        seen.add(report.verdict)
    assert "altered" in seen


def test_another_picture_under_the_same_manifest_is_seen(tmp_path: Path, target: Path) -> None:
    """The whole manifest of one JPEG, put into another."""
    content = made(tmp_path, ".jpg", target).read_bytes()
    other = io.BytesIO()
    Image.fromarray(PICTURE[::-1]).save(other, "JPEG")
    segments = b"".join(match.group(0) for match in jumbf(content))
    (tmp_path / "forged.jpg").write_bytes(other.getvalue()[:2] + segments + other.getvalue()[2:])
    assert segments and verify(tmp_path / "forged.jpg").verdict == "altered"


def jumbf(content: bytes) -> list[re.Match[bytes]]:
    found = [m for m in re.finditer(rb"\xff\xeb(..)JP", content, re.DOTALL)]
    result = []
    for match in found:
        length = 2 + int.from_bytes(match.group(1), "big")
        whole = re.compile(rb".{%d}" % length, re.DOTALL).match(content, match.start())
        assert whole is not None
        result.append(whole)
    return result


# What survives


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_a_stripped_and_compressed_picture_leads_to_its_run(tmp_path: Path, target: Path, suffix: str) -> None:
    by = origin(consent="Ann agreed")
    out = made(tmp_path, suffix, target, by, consent="Ann agreed")
    stripped = tmp_path / "stripped.jpg"
    Image.fromarray(read_image(out)).save(stripped, quality=80)
    report = verify(stripped)
    assert report.verdict == "unsigned" and report.manifest is None and not report.xmp
    assert report.watermark is not None and report.watermark.payload == f"{by.watermark:08x}"
    (entry,) = report.ledger
    assert entry["model"] == "toy" and entry["recipe_sha256"] == "cd" * 32 and entry["consent"] == "Ann agreed"
    assert entry["manifest"] == known(verify(out)).label


def test_a_part_of_a_picture_leads_to_its_run(tmp_path: Path, target: Path) -> None:
    out = made(tmp_path, ".png", target)
    Image.fromarray(read_image(out)[21:221, 43:263]).save(tmp_path / "part.jpg", quality=85)
    assert len(verify(tmp_path / "part.jpg").ledger) == 1


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.5])
def test_a_smaller_or_larger_copy_leads_to_its_run(tmp_path: Path, target: Path, scale: float) -> None:
    """Ledger entries hold the sizes of results."""
    large = cv2.resize(data.astronaut(), (901, 703))
    write_swap(tmp_path / "out.png", large, origin(), ProvenanceOptions(), target)
    size = (round(901 * scale), round(703 * scale))
    Image.fromarray(read_image(tmp_path / "out.png")).resize(size).save(tmp_path / "copy.jpg", quality=85)
    report = verify(tmp_path / "copy.jpg")
    assert report.verdict == "unsigned" and [entry["size"] for entry in report.ledger] == [[901, 703]]


def test_sizes_that_a_copy_cannot_have_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in ([400, 300], [300, 400], [4000, 3000], [201, 150], [100, 75], "400x300", [200, 150], [401, 300]):
        ledger.append({"size": size})
    assert verification._sizes(200, 150) == [(401, 300), (100, 75), (201, 150), (400, 300)]


def test_a_stripped_video_leads_to_its_run(tmp_path: Path, target: Path) -> None:
    by = origin()
    out = made(tmp_path, ".mp4", target, by)
    with av.open(str(out)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    film(tmp_path / "again.mp4", frames)
    report = verify(tmp_path / "again.mp4")
    assert report.verdict == "unsigned" and not report.xmp and report.ledger[0]["file"] == str(out)
    assert report.watermark is not None and report.watermark.looked == 10


def test_a_watermark_of_another_machine_is_shown_but_not_known(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch, check_message: Callable[..., None]
) -> None:
    out = made(tmp_path, ".png", target)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "elsewhere"))
    report = verify(out)
    assert report.verdict == "intact" and report.ledger == [] and not known(report).made_here
    assert report.watermark is not None
    starts = ("  signed by: ", f"  watermark: {report.watermark.payload}, ")
    for line, start in zip([line for line in lines(report) if line.startswith(starts)], starts, strict=True):
        assert line.startswith(start)
        check_message(re.sub(FIGURES, lambda found: found.lastgroup or "", line))
    assert not (tmp_path / "elsewhere").exists()  # looking makes nothing


def test_a_watermark_that_contradicts_the_manifest_is_noted(
    tmp_path: Path, target: Path, check_message: Callable[..., None]
) -> None:
    write_image(tmp_path / "other.png", mark_frame(PICTURE, ProvenanceOptions(), 1))
    sign(tmp_path / "other.png", tmp_path / "out.png", target, origin(watermark=2))
    report = verify(tmp_path / "out.png")
    (note,) = report.notes
    assert report.verdict == "intact" and re.findall(r"\d{8}", note) == ["00000001", "00000002"]
    check_message(note)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_was_never_marked_is_unmarked(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"plain{suffix}"
    if suffix == ".mp4":
        film(path, [PICTURE] * 3)
    else:
        Image.fromarray(PICTURE).save(path)
    report = verify(path)
    assert report.verdict == "unmarked" and report.manifest is None and report.watermark is None and not report.xmp


def test_xmp_alone_makes_a_file_unsigned(tmp_path: Path) -> None:
    write_image(tmp_path / "a.webp", PICTURE)
    report = verify(tmp_path / "a.webp")
    assert report.verdict == "unsigned" and report.xmp and report.watermark is None


# What the manifest holds


def test_target_and_source_are_ingredients_with_their_manifests(tmp_path: Path, target: Path) -> None:
    first = made(tmp_path, ".png", target, consent="one")
    first = first.rename(tmp_path / "first.png")
    before = known(verify(first))
    for suffix in (".jpg", ".mp4"):
        report = verify(made(tmp_path, suffix, first, sources=[first]))
        parent, component = known(report).ingredients
        assert report.verdict == "intact"
        assert (parent["relationship"], component["relationship"]) == ("parentOf", "componentOf")
        assert parent["manifest"] == component["manifest"] == before.label
        assert parent["signer"] == before.signer and parent["problems"] == []


def test_several_sources_are_components(tmp_path: Path, target: Path) -> None:
    first = made(tmp_path, ".png", target)
    manifest = known(verify(made(tmp_path, ".jpg", target, sources=[first, target, first])))
    assert [each["title"] for each in manifest.ingredients] == ["target", "source 1", "source 2", "source 3"]
    assert [each["manifest"] is not None for each in manifest.ingredients] == [False, True, False, True]


def test_the_actions_are_those_of_an_edit(tmp_path: Path, target: Path) -> None:
    out = made(tmp_path, ".png", target, sources=[target])
    c2pa = provenance.library()
    with out.open("rb") as file, c2pa.Reader("image/png", file) as reader:
        manifest = reader.get_active_manifest()
    assertions = {each["label"]: each["data"] for each in manifest["assertions"]}
    actions = assertions["c2pa.actions.v2"]["actions"]
    assert [each["action"] for each in actions] == [
        "c2pa.opened",
        "c2pa.placed",
        "c2pa.edited",
        "c2pa.watermarked.bound",
    ]
    assert actions[2]["digitalSourceType"] == SOURCE_TYPE and SOURCE_TYPE.endswith(
        "digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
    )
    assert actions[2]["softwareAgent"]["name"] == "fsframework"
    assert assertions["c2pa.soft-binding"]["blocks"][0]["value"] == assertions[provenance.SWAP]["watermark"]
    assert "thumbnail" not in manifest


def test_it_costs_few_bytes_and_gives_no_names_away(tmp_path: Path, target: Path) -> None:
    plain = tmp_path / "plain.png"
    write_image(plain, mark_frame(PICTURE, ProvenanceOptions(), 5))
    out = made(tmp_path, ".png", target, origin(watermark=5), sources=[target])
    assert out.stat().st_size - plain.stat().st_size < 8000
    content = out.read_bytes()
    assert target.stem.encode() not in content and str(tmp_path).encode() not in content


def test_consent_is_stored(tmp_path: Path, target: Path) -> None:
    words = 'Ann, in writing: "yes" — 2026\nfor this film'
    report = verify(made(tmp_path, ".jpg", target, origin(consent=words), consent=words))
    assert known(report).consent == words and report.ledger[0]["consent"] == words
    assert any('consent: Ann, in writing: "yes" — 2026 for this film' in line for line in lines(report))
    assert known(verify(made(tmp_path, ".png", target))).consent is None


@pytest.mark.parametrize("words", ["", "  \n", "x" * 10_001], ids=["empty", "blank", "long"])
def test_consent_that_says_nothing_is_refused(words: str, expect_error: Callable[..., Any]) -> None:
    with expect_error("consent: "):
        ProvenanceOptions(consent=words)


def test_a_broken_parent_is_told(tmp_path: Path, target: Path, check_message: Callable[..., None]) -> None:
    """Its manifest is kept as it is; one that cannot even be parsed is left out, and the swap goes on."""
    content = made(tmp_path, ".jpg", target).read_bytes()
    altered = bytearray(content)
    altered[len(content) * 3 // 4] ^= 1
    (tmp_path / "altered.jpg").write_bytes(altered)
    report = verify(made(tmp_path, ".png", tmp_path / "altered.jpg"))
    assert report.verdict == "intact" and "mismatch" in known(report).ingredients[0]["problems"][0]
    (line,) = [line for line in lines(report) if line.startswith("  parent: target")]
    check_message(line, {"; ".join(known(report).ingredients[0]["problems"]): "PROBLEMS"})
    start = content.index(b"jumb")
    (tmp_path / "unreadable.jpg").write_bytes(content[: start + 5] + b"\xff" + content[start + 6 :])
    report = verify(made(tmp_path, ".png", tmp_path / "unreadable.jpg", sources=[tmp_path / "unreadable.jpg"]))
    (parent, component) = known(report).ingredients
    assert report.verdict == "intact" and parent["manifest"] is None
    check_message(parent["description"])
    assert component["relationship"] == "componentOf"


@pytest.mark.parametrize("suffix", [".bmp", ".gif", ".tif", ".ppm", ".jp2", ".avif", ".png", ".webp"])
def test_every_kind_of_target_is_a_parent(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"in{suffix}"
    Image.fromarray(PICTURE).save(path)
    report = verify(made(tmp_path, ".jpg", path))
    assert report.verdict == "intact" and known(report).ingredients[0]["relationship"] == "parentOf"


def test_the_kind_of_a_file_is_read_from_the_file(
    tmp_path: Path, target: Path, expect_error: Callable[..., Any]
) -> None:
    shutil.copy(target, tmp_path / "wrong.png")
    assert media_type(tmp_path / "wrong.png") == "image/jpeg"
    film(tmp_path / "a.mp4", [PICTURE])
    assert media_type((tmp_path / "a.mp4").rename(tmp_path / "a.bin")) == "video/mp4"
    assert verify(made(tmp_path, ".webp", tmp_path / "wrong.png")).verdict == "intact"
    with expect_error("no.jpg: "):
        media_type(tmp_path / "no.jpg")


# Who signs


def test_the_key_is_for_its_owner_alone(
    tmp_path: Path, target: Path, home: Path, expect_error: Callable[..., Any]
) -> None:
    made(tmp_path, ".jpg", target)
    for path, mode in [
        (home / "signing", 0o700),
        (certificates.made_file(), 0o600),
        (ledger_file(), 0o600),
    ]:
        assert stat.S_IMODE(path.stat().st_mode) == mode, path
    assert [path.name for path in (home / "signing").iterdir()] == ["certificate.pem"]
    before = certificates.made_file().read_bytes()
    made(tmp_path, ".png", target)
    assert certificates.made_file().read_bytes() == before and before.count(b"PRIVATE KEY") == 2  # one, once
    certificates.made_file().chmod(0o644)
    with expect_error("certificate.pem: "):
        made(tmp_path, ".webp", target)
    assert not (tmp_path / "out.webp").exists()


@pytest.mark.system
def test_processes_that_start_at_once_make_one_certificate(home: Path) -> None:
    code = "from fsframework.provenance.certificate import identity; print(identity().chain.hex())"
    command = [sys.executable, "-c", code]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    printed = [process.communicate(timeout=60) for process in started]
    assert [err for _, err in printed] == [""] * 4
    assert len({out for out, _ in printed}) == 1 and len(printed[0][0]) > 1000
    assert [path.name for path in (home / "signing").iterdir()] == ["certificate.pem"]


def test_threads_that_start_at_once_make_one_certificate() -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len({found.key for found in pool.map(lambda _: certificates.identity(), range(8))}) == 1


def test_a_certificate_that_another_process_made_meanwhile_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    first = certificates.identity()
    certificates._make(certificates.made_file())
    assert certificates.identity() == first


Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def issued(
    folder: Path, key: Key, days: float = 30, purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.EMAIL_PROTECTION
) -> tuple[Path, Path]:
    """A certificate of an authority of ours, and its key."""
    authority = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    name, issuer = (
        x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, o), x509.NameAttribute(NameOID.COMMON_NAME, c)])
        for o, c in [("Studio", "Ann at Studio"), ("Authority", "Authority")]
    )
    usage = dict.fromkeys(["content_commitment", "key_encipherment", "data_encipherment", "key_agreement"], False)
    usage |= dict.fromkeys(["key_cert_sign", "crl_sign", "encipher_only", "decipher_only"], False)
    public = authority.public_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=abs(days) + 1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, **usage), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(authority, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "own.pem").write_bytes(certificate.public_bytes(pem))
    plain = serialization.NoEncryption()
    (folder / "own.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return folder / "own.pem", folder / "own.key"


KINDS: dict[str, Callable[[], Key]] = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}


@pytest.mark.parametrize("kind", KINDS)
def test_ones_own_certificate_signs(
    tmp_path: Path, target: Path, home: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for name, file in zip(("CERT", "KEY"), issued(tmp_path, KINDS[kind]()), strict=True):
        monkeypatch.setenv(f"FSF_C2PA_{name}", str(file))
    report = verify(made(tmp_path, ".jpg", target))
    assert report.verdict == "intact" and known(report).signer == "Ann at Studio, Studio"
    assert not known(report).made_here and not (home / "signing").exists()


def missing(certificate: Path, key: Path) -> None:
    key.unlink()


def no_pem(certificate: Path, key: Path) -> None:
    certificate.write_text("I am a text.")


def another_key(certificate: Path, key: Path) -> None:
    issued(certificate.parent, KINDS["P-256"]())
    kept = key.read_bytes()
    issued(certificate.parent, KINDS["P-256"]())
    key.write_bytes(kept)


def expired(certificate: Path, key: Path) -> None:
    issued(certificate.parent, KINDS["P-256"](), days=-2)


def locked(certificate: Path, key: Path) -> None:
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    form = serialization.PrivateFormat.PKCS8
    secret = serialization.BestAvailableEncryption(b"secret")
    key.write_bytes(private.private_bytes(serialization.Encoding.PEM, form, secret))


def of_another_curve(certificate: Path, key: Path) -> None:
    issued(certificate.parent, ec.generate_private_key(ec.SECP256K1()))


def for_servers(certificate: Path, key: Path) -> None:
    issued(certificate.parent, KINDS["P-256"](), purpose=ExtendedKeyUsageOID.SERVER_AUTH)


def a_folder(certificate: Path, key: Path) -> None:
    certificate.unlink()
    certificate.mkdir()


@pytest.mark.parametrize(
    "spoil", [missing, no_pem, another_key, expired, locked, of_another_curve, for_servers, a_folder]
)
def test_a_bad_certificate_is_one_clear_line_and_no_file(
    tmp_path: Path,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path, Path], None],
    check_message: Callable[..., None],
) -> None:
    certificate, key = issued(tmp_path, KINDS["P-256"]())
    spoil(certificate, key)
    monkeypatch.setenv("FSF_C2PA_CERT", str(certificate))
    monkeypatch.setenv("FSF_C2PA_KEY", str(key))
    with pytest.raises(UserError) as caught:
        made(tmp_path, ".jpg", target)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/out.jpg: " if spoil is for_servers else f"{certificate}, {key}: ")
    assert "\n" not in message and "; " in message
    check_message(re.sub(r"\d{4}-\d\d-\d\d", "DATE", message), reason=spoil is for_servers)
    assert not list(tmp_path.glob("*out*")) and lookup() == []


def test_one_of_two_settings_is_a_mistake(monkeypatch: pytest.MonkeyPatch, expect_error: Callable[..., Any]) -> None:
    monkeypatch.setenv("FSF_C2PA_CERT", "a.pem")
    with expect_error("FSF_C2PA_CERT, FSF_C2PA_KEY: "):
        ProvenanceOptions().check()
    ProvenanceOptions(provenance=False).check()


def test_a_damaged_made_certificate_says_what_to_do(
    tmp_path: Path, target: Path, expect_error: Callable[..., Any]
) -> None:
    certificates.identity()
    certificates.made_file().write_text("spoilt")
    with expect_error("certificate.pem: "):
        made(tmp_path, ".jpg", target)


def test_a_certificate_that_has_expired_is_doubtful() -> None:
    """data/expired.jpg was signed by a certificate that was valid for six seconds (`issued(..., days=6 / 86400)`)."""
    report = verify(ROOT / "tests" / "data" / "expired.jpg")
    assert report.verdict == "doubtful" and "xpired" in known(report).problems[0]


def test_no_key_lies_in_the_repository() -> None:
    begin = b"-----BEGIN " + b"%sPRIVATE KEY"
    for folder in ("fsframework", "plugins", "benchmarks", "tests", "recipes", "docs"):
        for file in (ROOT / folder).rglob("*"):
            if file.is_file():
                content = file.read_bytes()
                assert not any(begin % kind in content for kind in (b"", b"EC ", b"RSA ", b"ENCRYPTED ")), file
                assert file.suffix not in (".pem", ".key", ".p12", ".pfx"), file


# When it cannot be done


def test_nothing_is_written_unless_it_is_signed_and_in_the_ledger(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch, check_message: Callable[..., None]
) -> None:
    out = tmp_path / "out.jpg"
    out.write_bytes(b"what was here before")

    def refuse(*values: object) -> None:
        raise UserError("ledger: cannot be written; mend it")

    with monkeypatch.context() as patch:
        patch.setattr(provenance, "append", refuse)
        patch.setattr("fsframework.provenance.options.append", refuse)
        for provided in (True, False):
            with pytest.raises(UserError, match="ledger"):
                made(tmp_path, ".jpg", target, provenance=provided)
    assert out.read_bytes() == b"what was here before"
    monkeypatch.setitem(sys.modules, "c2pa", None)  # its library is missing
    with pytest.raises(UserError) as caught:
        made(tmp_path, ".jpg", target)
    message = str(caught.value)
    assert message.startswith("c2pa-python: ") and "\n" not in message
    check_message(message, {str(caught.value.__cause__): "REASON"})
    assert out.read_bytes() == b"what was here before"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == ["out.jpg", "somebody.jpg"]
    made(tmp_path, ".jpg", target, provenance=False)
    assert is_marked(out)


def test_a_library_that_fails_is_one_line(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch, expect_error: Callable[..., Any]
) -> None:
    def fail(*values: object) -> None:
        raise TypeError("sign() takes\nsomething else")

    monkeypatch.setattr(provenance.library().Builder, "sign", fail)
    with expect_error("out.jpg: "):
        made(tmp_path, ".jpg", target)
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.system
def test_a_full_disk_leaves_no_file(tmp_path: Path, target: Path, check_message: Callable[..., None]) -> None:
    """A child process may write less than the result takes."""
    code = (
        "import resource, signal, sys; from pathlib import Path; import numpy as np\n"
        "from fsframework.core.errors import UserError; from fsframework.provenance.options import *\n"
        "from fsframework.provenance.record import *\n"
        "image = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)\n"
        "origin, marking = ProvenanceRecord('toy', None, None), ProvenanceOptions(); marking.check()\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))\n"
        "try: write_swap(Path(sys.argv[1]), image, origin, marking, Path(sys.argv[2]))\n"
        "except UserError as error: print(error)\n"
    )
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    write_swap(tmp_path / "whole.png", noise, origin(), ProvenanceOptions(), target)
    for limit in (1000, (tmp_path / "whole.png").stat().st_size - 2000):  # the picture; the picture with its manifest
        words = [sys.executable, "-c", code, tmp_path / "out.png", target, limit]
        result = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith(f"{tmp_path / 'out.png'}: ") and result.stdout.count("\n") == 1
        check_message(result.stdout.rstrip(), reason=True)
        assert not list(tmp_path.glob("*out*")) and not list(tmp_path.glob(".*"))


def test_a_home_that_cannot_be_written_says_what_to_do(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch, expect_error: Callable[..., Any]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    with expect_error("certificate.pem: "):
        made(tmp_path, ".jpg", target)
    with expect_error("ledger.jsonl: "):
        made(tmp_path, ".jpg", target, provenance=False)
    assert not (tmp_path / "out.jpg").exists()


# Opting out, and the ledger


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_opting_out_is_recorded(
    tmp_path: Path, target: Path, suffix: str, home: Path, check_message: Callable[..., None]
) -> None:
    out = made(tmp_path, suffix, target, provenance=False)
    report = verify(out)
    assert report.manifest is None and report.watermark is None
    assert report.verdict == "unsigned" and report.xmp  # XMP stays
    (entry,) = report.ledger
    assert entry["provenance"] is False and entry["sha256"] == sha256_of(out) and "watermark" not in entry
    assert datetime.datetime.fromisoformat(entry["time"]).tzinfo is not None and entry["model"] == "toy"
    (line,) = [line for line in lines(report) if line.startswith("  ledger: ")]
    check_message(line.partition(": file ")[0], {entry["time"]: "TIME"})
    assert not (home / "signing").exists()
    if suffix == ".png":
        assert (read_image(out) == PICTURE).all()


def test_a_damaged_ledger_serves_what_it_still_holds() -> None:
    ledger.append({"watermark": "00000001"})
    with ledger_file().open("ab") as file:
        file.write(b'{"watermark": "000000\xff02\n[1, 2]\n{"cut": ')
    ledger.append({"watermark": "00000003"})
    assert [entry["watermark"] for entry in lookup()] == ["00000003", "00000001"]
    assert lookup(watermark="00000002") == [] and len(lookup(watermark="00000003")) == 1


def test_lines_of_many_writers_stay_whole() -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: ledger.append({"number": str(number), "fill": "x" * 3000}), range(64)))
    assert sorted(int(entry["number"]) for entry in lookup()) == list(range(64))


# The visible mark


def test_a_label_is_drawn_below_the_watermark(tmp_path: Path, target: Path) -> None:
    plain = read_image(made(tmp_path, ".png", target))
    labelled = read_image(made(tmp_path, ".png", target, label=True))
    corner = np.abs(plain[-25:, :60].astype(int) - labelled[-25:, :60]).max()
    assert corner > 60 and np.abs(plain[:-60].astype(int) - labelled[:-60]).max() < 16
    assert read(labelled) is not None
    made(tmp_path, ".png", target, label=True, provenance=False)
    assert (read_image(tmp_path / "out.png") != PICTURE).any() and read(read_image(tmp_path / "out.png")) is None


# The command


class Fsf:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        self.monkeypatch.setattr(sys, "argv", ["fsf", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main.main()
        out, err = self.capsys.readouterr()
        return int(left.value.code or 0), out, err


@pytest.fixture
def fsf(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Fsf:
    return Fsf(monkeypatch, capsys)


def test_verify_tells_and_exits(fsf: Fsf, tmp_path: Path, target: Path, check_message: Callable[..., None]) -> None:
    good = made(tmp_path, ".png", target, origin(consent="Ann agreed"), consent="Ann agreed")
    status, out, err = fsf("verify", good)
    assert status == 0 and err == "" and out.splitlines()[0].startswith(f"{good}: intact: ")
    report = verify(good)
    assert report.watermark is not None and report.ledger
    for words in ("model: toy", f"weights sha256: {'ab' * 32}", "consent: Ann agreed", report.watermark.payload):
        assert words in out, words
    for key in ("signed by", "parent: target", "XMP", "watermark", "ledger"):
        assert f"\n  {key}" in out, key
    check_message(re.sub(FIGURES, lambda found: found.lastgroup or "", out), {version("fsframework"): "VERSION"})
    status, out, err = fsf("verify", target, good, tmp_path / "none.jpg")
    assert status == 1 and f"{target}: unmarked: " in out and f"{good}: intact: " in out
    assert err.startswith(f"{tmp_path / 'none.jpg'}: ") and err.count("\n") == 1
    check_message(err)
    assert fsf("verify")[0] == 2


def test_what_others_wrote_steers_no_terminal(tmp_path: Path, target: Path) -> None:
    words = "Ann \x1b[2Jagreed\x07"
    report = verify(made(tmp_path, ".jpg", target, origin(consent=words, model="\x1b]0;x\x07"), consent=words))
    assert known(report).consent == words and all(line.isprintable() for line in lines(report))


def test_a_manifest_of_another_form_is_told(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signed by somebody else, with assertions that bear our names and hold anything."""
    wrong: list[Any] = [[1, 2], "text", {"text": 5}, {"watermark": ["x"]}, None, {"text": None}]
    for number, value in enumerate(wrong):
        assertions: list[dict[str, Any]] = [
            {"label": label, "data": value} for label in (provenance.SWAP, provenance.CONSENT) if value
        ]
        manifest = {"claim_generator_info": [{"name": "other"}], "assertions": assertions, "ingredients": []}
        opened = {"actions": [{"action": "c2pa.opened", "parameters": {"ingredientIds": ["target"]}}]}
        assertions.append({"label": "c2pa.actions.v2", "data": opened})
        monkeypatch.setattr(provenance, "_manifest", lambda *values, manifest=manifest: manifest)
        report = verify(made(tmp_path, ".jpg", target))
        assert report.verdict == "intact" and not known(report).synthetic and lines(report), number
        json.dumps(report.plain())


def test_verify_prints_json(fsf: Fsf, tmp_path: Path, target: Path) -> None:
    good = made(tmp_path, ".jpg", target)
    status, out, _ = fsf("verify", "--json", good, target)
    first, second = json.loads(out)
    assert status == 1 and first["verdict"] == "intact" and second["verdict"] == "unmarked"
    assert first["manifest"]["facts"]["model"] == "toy" and first["watermark"]["payload"] and second["manifest"] is None
    assert [each["title"] for each in first["manifest"]["ingredients"]] == ["target"]


@pytest.mark.parametrize(
    "content", [b"", b"I am a text.", b"\x89PNG\r\n\x1a\n", b"RIFF1234WEBP", b"\0\0\0\x18ftypmp42"]
)
@pytest.mark.parametrize("suffix", [".png", ".mp4"])
def test_what_cannot_be_read_is_one_line(fsf: Fsf, tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    status, out, err = fsf("verify", path)
    assert status == 1 and out == "" and err.count("\n") == 1 and err.startswith(f"{path}: ")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_half_a_file_is_altered_or_unreadable(fsf: Fsf, tmp_path: Path, target: Path, suffix: str) -> None:
    out = made(tmp_path, suffix, target)
    out.write_bytes(out.read_bytes()[: out.stat().st_size * 2 // 3])
    status, told, err = fsf("verify", out)
    assert status == 1 and (f"{out}: altered: " in told) != (err.count("\n") == 1)


def test_videos_without_pyav_still_show_their_manifest(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch, check_message: Callable[..., None]
) -> None:
    out = made(tmp_path, ".mp4", target)
    monkeypatch.setitem(sys.modules, "av", None)
    report = verify(out)
    assert report.verdict == "intact" and report.xmp and report.watermark is None
    (note,) = report.notes
    check_message(note)


def test_frames_that_are_looked_at_are_spread_over_the_video(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [np.full((96, 128, 3), 5 * step, np.uint8) for step in range(40)]
    film(tmp_path / "a.mp4", frames)
    seen: list[float] = []
    together = "fsframework.provenance.verify.read_together"
    monkeypatch.setattr(together, lambda frames: seen.extend(cv2.mean(frame)[0] / 5 for frame in frames))
    verify(tmp_path / "a.mp4")
    assert np.allclose(seen, range(0, 40, 4), atol=0.6)
