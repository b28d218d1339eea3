"""`fsf serve`: what it answers, and what it refuses while it stays alive."""

import base64
import http.client
import io
import json
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from skimage import data
from swapping import FAST_MODEL

from fsframework.cli.main import fsf
from fsframework.core.errors import UserError
from fsframework.core.registry import registry
from fsframework.faces.select import choose
from fsframework.inference.face_swapper import FaceSwapper
from fsframework.media.image_io import read_image
from fsframework.provenance.verify import verify
from fsframework.provenance.watermark import embed, read
from fsframework.web.serve.auth import token_for
from fsframework.web.serve.queue import Limits
from fsframework.web.serve.schemas import SwapRequest
from fsframework.web.serve.swaps import Work
from fsframework.web.server import HEADERS

LIMITS = Limits()
TOKEN = "0123456789abcdef"
CHUNK = 1 << 16  # bytes
GROWTH = 300_000  # kB that 200 requests at once may add to the process


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        assert self.said.keys() == {"error"} and self.said["error"].endswith(".")
        return str(self.said["error"])


def ask(place: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
    """`place` is a host and a port."""
    with closing(http.client.HTTPConnection(place, timeout=120)) as connection:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return Reply(answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read())


def form(files: dict[str, bytes], fields: dict[str, str], name: str = "x.png") -> tuple[bytes, dict[str, str]]:
    """The body of a form, and its header."""
    parts = [f'name="{key}"\r\n\r\n{value}\r\n'.encode() for key, value in fields.items()]
    parts += [f'name="{key}"; filename="{name}"\r\n\r\n'.encode() + value + b"\r\n" for key, value in files.items()]
    body = b"".join(b"--limit\r\nContent-Disposition: form-data; " + part for part in parts) + b"--limit--\r\n"
    return body, {"Content-Type": "multipart/form-data; boundary=limit"}


def encoded(picture: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind)
    return file.getvalue()


def decoded(content: bytes) -> np.ndarray:
    return read_image(io.BytesIO(content))


def empty_png(side: int) -> bytes:
    """A white PNG of one bit a pixel: about a hundredth of a byte each."""
    rows = zlib.compress((b"\0" + b"\xff" * (side // 8)) * side, 1)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


@pytest.fixture(scope="module")
def converter() -> FaceSwapper:
    return FaceSwapper(FAST_MODEL, "cpu")


@pytest.fixture(scope="module")
def source() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[:280, 100:380])


@pytest.fixture(scope="module")
def target(source: np.ndarray) -> np.ndarray:
    """Two faces: on the left a smaller one."""
    wide = np.full((280, 500, 3), 128, np.uint8)
    wide[40:240, :200] = np.asarray(Image.fromarray(source).resize((200, 200)))
    wide[:, 220:] = source[:, ::-1]
    return wide


@pytest.fixture(scope="module")
def served(running: Callable[..., Any]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    with running("serve", "--runtime", "torch", "--port", "0", "--device", "cpu", "--model", FAST_MODEL) as (
        address,
        process,
    ):
        yield address.removeprefix("http://"), process


@pytest.fixture
def place(served: tuple[str, subprocess.Popen[str]]) -> str:
    return served[0]


@pytest.fixture(scope="module")
def pair(source: np.ndarray, target: np.ndarray) -> dict[str, bytes]:
    return {"source": encoded(source), "target": encoded(target)}


def test_results_keep_exif_without_the_place(place: str, source: np.ndarray, target: np.ndarray) -> None:
    tags = Image.Exif()
    tags[0x010F] = "Maker"
    tags.get_ifd(0x8769)[0xA431] = "SERIAL"
    tags.get_ifd(0x8825)[1] = "N"
    file = io.BytesIO()
    Image.fromarray(target).save(file, "JPEG", exif=tags, dpi=(300, 300))
    files = {"source": encoded(source), "target": file.getvalue()}
    reply = ask(place, "POST", "/api/swap", *form(files, {"format": "jpeg"}))
    with Image.open(io.BytesIO(reply.body)) as image:
        assert image.getexif()[0x010F] == "Maker" and image.info["dpi"] == (300, 300)
        assert not image.getexif().get_ifd(0x8825) and 0xA431 not in image.getexif().get_ifd(0x8769)


def test_a_moving_picture_is_refused(
    converter: FaceSwapper, pair: dict[str, bytes], tmp_path: Path, expect_error: Callable[..., Any]
) -> None:
    frames = [Image.new("RGB", (64, 64), shade) for shade in ("black", "white")]
    (tmp_path / "source").write_bytes(pair["source"])
    frames[0].save(tmp_path / "target", "GIF", save_all=True, append_images=frames[1:])
    with expect_error("target: "):
        Work(converter, LIMITS).swap(tmp_path, SwapRequest())


def test_page_and_headers(place: str) -> None:
    kinds = {"/": "text/html", "/base.css": "text/css", "/page.css": "text/css", "/page.js": "text/javascript"}
    for path, kind in kinds.items():
        reply = ask(place, "GET", path)
        assert reply.status == 200 and reply.headers["content-type"].startswith(kind)
        assert {key: reply.headers[key.lower()] for key in HEADERS} == HEADERS
        assert b"http" not in reply.body  # nothing from elsewhere
        assert "set-cookie" not in reply.headers and "server" not in reply.headers


def test_what_it_is(place: str, converter: FaceSwapper) -> None:
    said = ask(place, "GET", "/api/info").said
    assert said["model"] == converter.model and said["weights_sha256"] == converter.weights_sha256
    assert (said["file_bytes"], said["pixels"]) == (LIMITS.file_bytes, LIMITS.pixels)


def test_interface_is_described(place: str) -> None:
    said = ask(place, "GET", "/openapi.json").said
    assert set(said["paths"]) == {"/api/info", "/api/faces", "/api/swap", "/api/swap/details", "/api/verify"}
    for path, methods in said["paths"].items():
        for method in methods.values():
            assert method["summary"] and {"401", "403"} <= method["responses"].keys()
            if path != "/api/info":
                assert {"400", "408", "413", "422", "503", "504"} <= method["responses"].keys()
                assert "multipart/form-data" in method["requestBody"]["content"]
    fields = said["paths"]["/api/swap"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert set(fields) == {"source", "target", "face", "source_face", "label", "consent", "format"}
    assert all(field["description"] for field in fields.values())
    assert ask(place, "GET", "/docs").status == ask(place, "GET", "/redoc").status == 404


@pytest.mark.parametrize("as_form", [False, True])
def test_faces(place: str, converter: FaceSwapper, target: np.ndarray, as_form: bool) -> None:
    body, headers = form({"picture": encoded(target)}, {}) if as_form else (encoded(target), {})
    said = ask(place, "POST", "/api/faces", body, headers).said
    assert (said["width"], said["height"]) == (500, 280)
    faces = sorted(converter.find(target, "x"), key=lambda face: face.box[0])
    assert [face["number"] for face in said["faces"]] == [1, 2] == list(range(1, 1 + len(faces)))
    assert [face["largest"] for face in said["faces"]] == [False, True]
    np.testing.assert_allclose([face["box"] for face in said["faces"]], [face.box for face in faces], atol=0.02)
    np.testing.assert_allclose(
        [face["landmarks"] for face in said["faces"]], [face.landmarks for face in faces], atol=0.02
    )


@pytest.mark.parametrize("face", ["", "1", "all"])
def test_swap_is_the_converters(
    place: str, converter: FaceSwapper, source: np.ndarray, target: np.ndarray, pair: dict[str, bytes], face: str
) -> None:
    reply = ask(place, "POST", "/api/swap", *form(pair, {"face": face}))
    assert reply.status == 200 and reply.headers["content-type"] == "image/png"
    assert float(reply.headers["x-seconds"]) > 0
    made = decoded(reply.body)
    mark = read(made)
    assert mark is not None
    expected = embed(converter.swap(source, target, face or "largest"), mark.payload)
    assert np.mean(made != expected) < 1e-3  # another process may round otherwise
    assert np.abs(made[:, 250:].astype(int) - target[:, 250:]).max() > 40 or face == "1"


@pytest.mark.parametrize(("kind", "suffix"), [("png", "png"), ("jpeg", "jpg"), ("webp", "webp")])
def test_results_are_marked(place: str, pair: dict[str, bytes], tmp_path: Path, kind: str, suffix: str) -> None:
    fields = {"format": kind, "consent": "Eileen agreed.", "label": "true"}
    reply = ask(place, "POST", "/api/swap", *form(pair, fields))
    assert reply.headers["content-disposition"] == f'attachment; filename="swap.{suffix}"'
    file = tmp_path / f"x.{suffix}"
    file.write_bytes(reply.body)
    report = verify(file)
    assert report.verdict == "intact" and report.xmp and report.watermark is not None
    assert report.manifest is not None and report.manifest.consent == "Eileen agreed."
    assert [each["title"] for each in report.manifest.ingredients] == ["target", "source"]
    plain = decoded(ask(place, "POST", "/api/swap", *form(pair, {"format": kind})).body)
    corner = np.s_[-12:, :40]
    assert np.abs(decoded(reply.body)[corner].astype(int) - plain[corner]).mean() > 20  # the word


def test_details(
    place: str, converter: FaceSwapper, target: np.ndarray, pair: dict[str, bytes], tmp_path: Path
) -> None:
    said = ask(place, "POST", "/api/swap/details", *form(pair, {"face": "all", "consent": "Yes."})).said
    assert (said["type"], said["file_name"], said["width"], said["height"]) == ("image/png", "swap.png", 500, 280)
    made = decoded(base64.b64decode(said["result"]))
    assert made.shape == target.shape
    assert [face["number"] for face in said["faces"]] == [1, 2]
    assert re.match(r"a head of 1[67]\d px is generated at 64 px, ", said["note"])
    assert ask(place, "POST", "/api/swap/details", *form(pair, {"face": "1"})).said["note"] is None
    found = sorted(converter.find(target, "x"), key=lambda face: face.box[0])
    for place_, face in enumerate(said["faces"]):
        assert face["cosine_to_source"] > 0.7  # it is the same person everywhere
        assert 0 <= face["pose_degrees"] < 30
        mask = decoded(base64.b64decode(face["mask"]))
        assert mask.shape == (converter.size, converter.size, 3) and mask.max() > 250 and mask.min() == 0
        middle = np.array(face["matrix"]) @ [*found[place_].landmarks[2], 1]  # the nose
        assert mask[round(middle[1]), round(middle[0]), 0] == 255
        crop = tmp_path / "crop.png"
        crop.write_bytes(base64.b64decode(face["swap"]))
        assert verify(crop).verdict == "unsigned" and verify(crop).xmp and verify(crop).watermark is not None
        assert decoded(base64.b64decode(face["target"])).shape == (256, 256, 3)


def test_another_face_of_the_source(place: str, converter: FaceSwapper, source: np.ndarray, target: np.ndarray) -> None:
    files = {"source": encoded(target), "target": encoded(source)}
    made = decoded(ask(place, "POST", "/api/swap", *form(files, {"source_face": "1"})).body)
    who = converter.source(target, "x", "1")
    mark = read(made)
    assert mark is not None
    expected = embed(
        converter.swap_faces(source, [(choose(converter.find(source, "x"), "1", "x")[0], who)]), mark.payload
    )
    assert np.mean(made != expected) < 1e-3


def test_verify(place: str, pair: dict[str, bytes], source: np.ndarray, tmp_path: Path) -> None:
    made = ask(place, "POST", "/api/swap", *form(pair, {})).body
    said = ask(place, "POST", "/api/verify", made).said
    assert said["verdict"] == "intact" and said["manifest"]["made_here"] and said["xmp"]
    assert said["ledger_entries"] and not any("file" in entry for entry in said["ledger_entries"])
    assert "fsf-serve" not in json.dumps(said)  # no folders of this machine
    plain = ask(place, "POST", "/api/verify", *form({"picture": encoded(source)}, {})).said
    assert (plain["verdict"], plain["manifest"], plain["watermark"]) == ("unmarked", None, None)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "WEBP"])
def test_formats(place: str, source: np.ndarray, tmp_path: Path, kind: str) -> None:
    picture = encoded(source, kind)
    reply = ask(place, "POST", "/api/swap", *form({"source": picture, "target": picture}, {}))
    assert reply.status == 200, reply.body
    assert ask(place, "POST", "/api/verify", picture).said["verdict"] == "unmarked"


BLANK = encoded(np.full((200, 200, 3), 200, np.uint8))
FACE = encoded(np.ascontiguousarray(data.astronaut()[:280, 100:380]), "JPEG")


@pytest.mark.parametrize(
    ("files", "fields", "where"),
    [
        pytest.param({"source": FACE}, {}, "target: ", id="no-target"),
        pytest.param({"source": FACE, "target": b""}, {}, "target: ", id="empty"),
        pytest.param({"source": FACE, "other": FACE}, {}, "", id="other-file"),
        pytest.param({"source": FACE, "target": b"GIF89a, not really"}, {}, "target: ", id="no-gif"),
        pytest.param({"source": FACE, "target": b"%PDF-1.7\n" + FACE}, {}, "target: ", id="pdf"),
        pytest.param({"source": FACE[: len(FACE) // 2], "target": FACE}, {}, "source: ", id="half"),
        pytest.param({"source": BLANK, "target": FACE}, {}, "source: ", id="no-face-source"),
        pytest.param({"source": FACE, "target": BLANK}, {}, "target: ", id="no-face-target"),
        pytest.param({"source": FACE, "target": empty_png(5008)}, {}, "target: ", id="large"),
        pytest.param({"source": empty_png(30000), "target": FACE}, {}, "source: ", id="huge"),
        pytest.param({"source": FACE, "target": FACE}, {"face": "2"}, "target: ", id="face"),
        pytest.param({"source": FACE, "target": FACE}, {"source_face": "2"}, "source: ", id="source-face"),
        pytest.param({"source": FACE, "target": FACE}, {"consent": " "}, "consent: ", id="empty-consent"),
        pytest.param({"source": FACE, "target": FACE}, {"consent": "x" * 15000}, "consent: ", id="long-consent"),
    ],
)
def test_refused_forms(
    place: str, files: dict[str, bytes], fields: dict[str, str], where: str, check_message: Callable[..., None]
) -> None:
    reply = ask(place, "POST", "/api/swap", *form(files, fields))
    assert reply.status == 422 and reply.error.startswith(where)
    assert reply.headers["content-security-policy"] and "/tmp" not in reply.error
    check_message(re.sub(r"image file is truncated \(\d+ bytes not processed\)", "REASON", reply.error))  # Pillow's


@pytest.mark.parametrize(
    ("files", "fields", "status", "sentence"),
    [
        pytest.param({"more": FACE}, {}, 400, "Too many files.", id="files"),
        pytest.param({}, {"consent": "x" * 30000}, 400, "Part exceeded maximum size", id="long-field"),
        pytest.param({}, {str(number): "x" for number in range(9)}, 400, "Too many fields.", id="fields"),
        pytest.param({}, {"face": "0"}, 422, "face: ", id="face"),
        pytest.param({}, {"source_face": "all"}, 422, "source_face: ", id="source-face"),
        pytest.param({}, {"format": "gif"}, 422, "format: ", id="format"),
        pytest.param({}, {"label": "perhaps"}, 422, "label: ", id="label"),
        pytest.param({}, {"provenance": "false"}, 422, "provenance: ", id="other-field"),
    ],
)
def test_forms_that_libraries_refuse(
    place: str, files: dict[str, bytes], fields: dict[str, str], status: int, sentence: str
) -> None:
    """In sentences of Starlette's, or after a field's name in pydantic's."""
    reply = ask(place, "POST", "/api/swap", *form({"source": FACE, "target": FACE} | files, fields))
    assert (reply.status, reply.error[: len(sentence)]) == (status, sentence)
    assert reply.headers["content-security-policy"] and "/tmp" not in reply.error


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "C:\\boot.ini", "a\0b.png", "x" * 1000, "-rf.png"])
def test_names_of_files_are_not_looked_at(place: str, name: str) -> None:
    reply = ask(place, "POST", "/api/swap", *form({"source": FACE, "target": FACE}, {}, name))
    assert reply.status == 200 and reply.headers["content-disposition"] == 'attachment; filename="swap.png"'


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("GET", "/nothing", None, {}, 404),
        ("GET", "/../../etc/passwd", None, {}, 404),
        ("GET", "/..%2f..%2fetc%2fpasswd", None, {}, 404),
        ("GET", "/api/swap", None, {}, 405),
        ("POST", "/api/faces", b"", {}, 422),
        ("POST", "/api/faces", b"\0" * 1000, {"Content-Type": "text/plain"}, 422),
        ("POST", "/api/swap", b"x", {"Content-Type": "image/png"}, 422),
        ("POST", "/api/swap", b"x", {"Content-Type": "multipart/form-data"}, 400),
        ("POST", "/api/swap", b"--x\r\n\r\n\r\n", {"Content-Type": "multipart/form-data; boundary=x"}, 400),
        ("POST", "/api/swap", *form({"source": FACE, "target": FACE}, {}, "x" * 100_000), 400),
        ("POST", "/api/verify", b"not a picture", {}, 422),
        ("POST", "/api/faces", b"x", {"Content-Length": "-1"}, 400),
    ],
)
def test_other_refusals(place: str, method: str, path: str, body: bytes, headers: dict[str, str], status: int) -> None:
    reply = ask(place, method, path, body, headers)
    assert reply.status == status
    if headers.get("Content-Length") is None:  # else the HTTP library refuses it
        assert reply.error


def test_too_large_by_its_own_word(place: str) -> None:
    """Answered at once, although nothing has come yet."""
    host, _, port = place.partition(":")
    with closing(socket.create_connection((host, int(port)), timeout=30)) as connection:
        head = f"POST /api/faces HTTP/1.1\r\nHost: {place}\r\nContent-Length: {10**12}\r\nExpect: 100-continue\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(12) == b"HTTP/1.1 413"


@pytest.mark.parametrize("size", [LIMITS.file_bytes + 1, 2 * LIMITS.body_bytes])
@pytest.mark.parametrize("as_form", [False, True])
def test_too_large_while_it_comes(place: str, size: int, as_form: bool, check_message: Callable[..., None]) -> None:
    """In chunks, without a word about the length; who sends all of it hears why it is refused."""
    content = b"\0" * size
    body, headers = form({"picture": content}, {}) if as_form else (content, {})
    chunks = (body[start : start + CHUNK] for start in range(0, len(body), CHUNK))
    with closing(http.client.HTTPConnection(place, timeout=60)) as connection:
        connection.request("POST", "/api/faces", chunks, headers, encode_chunked=True)
        answer = connection.getresponse()
        error = json.loads(answer.read())["error"]
        assert answer.status == 413 and "20,000,000" in error
        check_message(error)


def test_without_end(place: str) -> None:
    """Whoever goes on sending is cut off."""
    host, _, port = place.partition(":")
    body, headers = form({"picture": b""}, {})
    most = 6 * LIMITS.body_bytes
    with closing(socket.create_connection((host, int(port)), timeout=30)) as connection:
        sent_first = {"Host": place, "Transfer-Encoding": "chunked", **headers}
        lines = [f"{name}: {value}" for name, value in sent_first.items()]
        connection.sendall("\r\n".join(["POST /api/faces HTTP/1.1", *lines, "", ""]).encode())
        begin = body[: body.index(b"\r\n\r\n") + 4]
        connection.sendall(b"%x\r\n" % len(begin) + begin + b"\r\n")
        part, sent = b"%x\r\n" % CHUNK + b"\0" * CHUNK + b"\r\n", 0
        with pytest.raises(OSError):
            while sent < most:
                connection.sendall(part)
                sent += CHUNK
        assert LIMITS.body_bytes < sent < most
    assert ask(place, "GET", "/api/info").status == 200


def test_more_than_was_said(place: str) -> None:
    """What follows the length is no part of the body, and no request either."""
    host, _, port = place.partition(":")
    with closing(socket.create_connection((host, int(port)), timeout=30)) as connection:
        head = f"POST /api/faces HTTP/1.1\r\nHost: {place}\r\nContent-Length: 10\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + b"x" * 10_000)
        assert connection.recv(12) == b"HTTP/1.1 422"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "10.0.0.1", ""])
def test_other_hosts(place: str, host: str, check_message: Callable[..., None]) -> None:
    reply = ask(place, "GET", "/api/info", None, {"Host": host})
    assert reply.status == 403
    check_message(reply.error)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:80", "127.0.0.2", "[::1]:8000"])
def test_own_hosts(place: str, host: str) -> None:
    assert ask(place, "GET", "/api/info", None, {"Host": host}).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},  # another port is another origin
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=["other", "null", "port", "cross-site", "same-site"],
)
def test_other_sites(place: str, headers: dict[str, str], check_message: Callable[..., None]) -> None:
    reply = ask(place, "POST", "/api/faces", FACE, headers)
    assert reply.status == 403
    check_message(reply.error)
    assert "access-control-allow-origin" not in reply.headers


def test_own_site(place: str) -> None:
    headers = {"Origin": f"http://{place}", "Sec-Fetch-Site": "same-origin"}
    assert ask(place, "POST", "/api/faces", FACE, headers).status == 200


def own_address() -> str:
    """A number of this machine that others use, if it has one."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as nobody:
        try:
            nobody.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            return "127.0.0.1"
        return str(nobody.getsockname()[0])


def test_token(running: Callable[..., Any], check_message: Callable[..., None]) -> None:
    with running(
        "serve", "--runtime", "torch", "--host", "0.0.0.0", "--port", "0", "--device", "cpu", "--model", FAST_MODEL
    ) as (printed, _):
        found = re.fullmatch(r"http://[^/]+:(\d+)/\?token=([\w-]{32})", printed)
        assert found, printed
        place, token = f"{own_address()}:{found[1]}", found[2]
        wrong: list[dict[str, str]] = [
            {},
            {"Authorization": "Bearer"},
            {"Authorization": f"Bearer {token}x"},
            {"Authorization": f"Basic {token}"},
            {"Authorization": "Bearer \xff"},
            {"Cookie": "fsf_token=x"},
            {"Cookie": "\xff;=;"},
            {"X-Forwarded-For": "127.0.0.1", "Host": "localhost"},
        ]
        sentences = set()
        for headers in wrong:
            for path in ("/", "/page.js", "/openapi.json", "/api/faces"):
                reply = ask(place, "POST" if path == "/api/faces" else "GET", path, None, headers)
                assert reply.status == 401 and reply.headers["www-authenticate"] == "Bearer"
                sentences.add(reply.error)
        (sentence,) = sentences
        check_message(sentence)
        assert ask(place, "GET", f"/?token={token}x").status == 401
        assert ask(place, "POST", f"/api/faces?token={token}", FACE).status == 401  # it stands in no other address
        assert ask(place, "POST", "/api/faces", FACE, {"Authorization": f"Bearer {token}"}).status == 200
        page = ask(place, "GET", f"/?token={token}")
        assert page.status == 200
        cookie, *rest = page.headers["set-cookie"].split("; ")
        assert rest == ["HttpOnly", "SameSite=Strict", "Path=/"]
        assert ask(place, "POST", "/api/faces", FACE, {"Cookie": cookie}).status == 200
        assert ask(place, "POST", "/api/faces", FACE, {"Cookie": cookie, "Origin": "http://x.example"}).status == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1"])
def test_no_token_is_needed_on_this_machine(host: str) -> None:
    assert token_for(host, None) is None and token_for(host, TOKEN) == TOKEN


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "fe80::1%eth0"])
def test_elsewhere_a_token_is_made(host: str) -> None:
    first, second = token_for(host, None), token_for(host, None)
    assert first is not None and first != second and len(first) == 32
    assert token_for(host, TOKEN) == TOKEN


@pytest.mark.parametrize(
    "token",
    ["", "short", "with spaces in between", "x" * 300, "semicolon;semicolon"],
    ids=["empty", "short", "spaces", "long", "semicolon"],
)
def test_tokens_that_are_none(token: str, expect_error: Callable[..., Any]) -> None:
    with expect_error("--token: "):
        token_for("127.0.0.1", token)
    done = CliRunner().invoke(fsf, ["serve", "--port", "0", "--token", token])
    assert isinstance(done.exception, UserError)


def memory(process: subprocess.Popen[str]) -> int:
    """The most that a process has had, in kB."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", text)[1])  # type: ignore[index]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_many_at_once(
    served: tuple[str, subprocess.Popen[str]], source: np.ndarray, check_message: Callable[..., None]
) -> None:
    """200 swaps of 3 MB at once: each is made or refused, nobody is left without an answer, and memory is bounded."""
    place, process = served
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)
    noise[200:480, 200:480] = source
    picture = encoded(noise)
    body, headers = form({"source": picture, "target": picture}, {})
    assert len(body) > 2_500_000  # 200 of them are more than GROWTH
    ask(place, "POST", "/api/swap", body, headers)
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # forget the peak
    before = memory(process)
    statuses: list[int] = []
    sentences: set[str] = set()

    def one() -> None:
        reply = ask(place, "POST", "/api/swap", body, headers)
        if reply.status != 200:
            assert reply.headers["retry-after"] == "5"
            sentences.add(reply.error)
        statuses.append(reply.status)

    threads = [threading.Thread(target=one) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    count = Counter(statuses)
    assert count.keys() == {200, 503} and count.total() == 200
    assert count[200] >= LIMITS.waiting + 1
    (sentence,) = sentences
    check_message(sentence)
    print(f"{dict(count)}, memory grew by {memory(process) - before} kB from {before} kB")
    assert memory(process) - before < GROWTH
    assert ask(place, "POST", "/api/swap", body, headers).status == 200 and process.poll() is None


SHORT = """
from fsframework.inference.face_swapper import FaceSwapper
from fsframework.web.serve.app import serve
from fsframework.web.serve.queue import Limits
from fsframework.web.serve.schemas import SwapRequest
from fsframework.web.serve.swaps import Work
import time
class Slow(FaceSwapper):
    def look(self, frame, name):
        time.sleep(3 if frame.shape[0] == 200 else 0)
        if frame.shape[0] == 100:
            raise RuntimeError("this is a defect")
        return super().look(frame, name)
def say(line):
    print(line, flush=True)
serve(lambda: Slow("faceshifter-lfw-64", "cpu"), "127.0.0.1", 0, None, say, Limits(seconds=2, waiting=1))
"""


def test_time_and_defects(running: Callable[..., Any], check_message: Callable[..., None]) -> None:
    with running(main=SHORT) as (address, _):
        place = address.removeprefix("http://")
        host, _, port = place.partition(":")
        with closing(socket.create_connection((host, int(port)), timeout=30)) as slow:
            slow.sendall(f"POST /api/faces HTTP/1.1\r\nHost: {place}\r\nContent-Length: 9\r\n\r\nx".encode())
            with closing(socket.create_connection((host, int(port)), timeout=30)) as other:
                other.sendall(f"POST /api/faces HTTP/1.1\r\nHost: {place}\r\nContent-Length: 9\r\n\r\nx".encode())
                time.sleep(0.5)
                assert ask(place, "POST", "/api/faces", FACE).status == 503  # both places are held by who sends slowly
                assert ask(place, "GET", "/api/info").status == 200
                slow.settimeout(60)
                assert slow.recv(12) == b"HTTP/1.1 408"
        began = time.monotonic()
        reply = ask(place, "POST", "/api/faces", BLANK)  # this one works for longer than it may
        assert reply.status == 504 and time.monotonic() - began < 3
        check_message(reply.error)
        time.sleep(1.5)
        reply = ask(place, "POST", "/api/faces", encoded(np.zeros((100, 100, 3), np.uint8)))
        assert reply.status == 500
        check_message(reply.error)
        assert ask(place, "POST", "/api/faces", FACE).status == 200


@pytest.mark.system
@pytest.mark.parametrize("module", ["fastapi", "uvicorn", "python_multipart"])
def test_without_what_serves(module: str, check_message: Callable[..., None]) -> None:
    code = (
        f"import sys; sys.modules['{module}'] = None; import fsframework.cli.main as cli\n"
        "sys.argv = ['fsf', 'serve']; cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("fsf serve ")
    check_message(line)


def test_port_that_is_taken(place: str, check_message: Callable[..., None]) -> None:
    port = place.partition(":")[2]
    with pytest.raises(UserError) as error:
        CliRunner().invoke(fsf, ["serve", "--port", port], catch_exceptions=False)
    assert str(error.value).startswith(f"{place}: ") and isinstance(error.value.__cause__, OSError)
    check_message(str(error.value), {str(error.value.__cause__.strerror): "REASON", port: "PORT"})


def test_models_that_there_are_not(expect_error: Callable[..., Any]) -> None:
    with expect_error("nothing: ", hide={", ".join(sorted(registry().models)): "MODELS"}):
        CliRunner().invoke(fsf, ["serve", "--port", "0", "--model", "nothing"], catch_exceptions=False)
