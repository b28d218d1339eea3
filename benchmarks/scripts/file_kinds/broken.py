"""Files that are damaged or are something else, names that shells dislike, and wrong arguments."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from films import make_film
from PIL import Image

from file_kinds.case import Bench, Case, Expected, Maker, Outcome, none_of
from file_kinds.look import film, film_check, picture_check
from file_kinds.people import at, portrait_of, scene
from file_kinds.sound import walk


def _none(outcome: Outcome) -> list[str]:
    return ["there is a result"]


def damaged_pictures(bench: Bench) -> Iterator[Case]:
    """Yield cases: pictures that end early, are empty, are texts or have another suffix."""
    whole = portrait_of(bench.cast.portrait, 60)
    image = Image.fromarray(whole.frame)
    for suffix in (".jpg", ".png", ".webp", ".gif", ".tif", ".bmp"):
        for share in (0.2, 0.9):
            target = bench.place() / f"picture{suffix}"
            image.save(target)
            data = target.read_bytes()
            target.write_bytes(data[: int(share * len(data))])
            title = f"{suffix} cut off at {share:.0%}"
            yield bench.swap(title, target, _none, ".png", expected="refusal", portable=True)
    contents = {
        "empty": b"",
        "text": b"not a picture\n" * 20,
        "zeros": bytes(3000),
        "HTML": b"<html><body>404</body></html>",
    }
    for name, content in contents.items():
        target = bench.place() / "picture.jpg"
        target.write_bytes(content)
        yield bench.swap(f"{name} as .jpg", target, _none, expected="refusal", portable=True)
    target = bench.place() / "picture.jpg"
    image.save(target, format="PNG")
    yield bench.swap("PNG named .jpg", target, picture_check(bench.cast, whole, [0]), portable=True)
    for name, frame in (
        ("one colour", np.full((200, 200, 3), 90, np.uint8)),
        ("one pixel", np.zeros((1, 1, 3), np.uint8)),
    ):
        target = bench.place() / "picture.png"
        Image.fromarray(frame).save(target)
        yield bench.swap(f"no face, {name}", target, _none, expected="refusal", portable=True)
    target = bench.place() / "picture.png"
    Image.fromarray(np.zeros((1, 200_000_000 // 8, 3), np.uint8)).save(target)
    yield bench.swap("a line of 25 million pixels", target, _none, expected="refusal")
    target = bench.place() / "picture.jpg"
    image.save(target, quality=95)
    changed = bytearray(target.read_bytes())
    for place in np.random.default_rng(1).integers(len(changed) // 2, len(changed) - 2, 20):
        changed[place] = 0x41
    target.write_bytes(changed)
    yield bench.swap("JPEG with 20 wrong bytes", target, none_of, expected="either", portable=True)


def damaged_films(bench: Bench) -> Iterator[Case]:
    """Yield cases: films that end early, lack their index, are encrypted or hold no pictures."""
    scenes = walk(bench, 12)
    frames = [each.frame for each in scenes]
    for suffix in (".mp4", ".mov", ".mkv", ".avi", ".ts"):
        codec = "mpeg4" if suffix == ".avi" else "libx264"
        whole = make_film(
            bench.place() / f"whole{suffix}", frames, codec, "mp2" if suffix == ".ts" else "aac", bframes=0
        )
        data = whole.read_bytes()
        for share in (0.3, 0.8):
            target = bench.place() / f"film{suffix}"
            target.write_bytes(data[: int(share * len(data))])

            def check(outcome: Outcome, target: Path = target) -> list[str]:
                shown, written = len(film(target).frames), len(film(outcome.out).frames)
                return [] if shown == written else [f"{written} frames, where FFmpeg shows {shown}"]

            expected: Expected = "refusal" if suffix in (".mp4", ".mov") else "either"
            title = f"{suffix} cut off at {share:.0%}"
            options = ["--no-provenance"] if suffix == ".mkv" else []
            out = suffix if suffix in (".mp4", ".mov", ".mkv") else ".mp4"
            yield bench.swap(title, target, check, out, options, expected)
    whole = make_film(bench.place() / "whole.mp4", frames, bframes=0, group=4)
    with av.open(str(whole)) as container:
        packets = [(packet.pos or 0, packet.size) for packet in container.demux(video=0) if packet.size]
    for name, number in (("key frame", 4), ("frame", 6), ("last frame", 11)):
        changed = bytearray(whole.read_bytes())
        place, size = packets[number]
        changed[place : place + size] = bytes(size)
        target = bench.place() / "film.mp4"
        target.write_bytes(changed)
        yield bench.swap(f"zeros in a {name}", target, none_of, expected="either")
    for name, content in (("empty", b""), ("text", b"no film\n" * 99), ("zeros", bytes(5000))):
        target = bench.place() / "film.mp4"
        target.write_bytes(content)
        yield bench.swap(f"{name} as .mp4", target, _none, expected="refusal")
    target = bench.place() / "film.mp4"
    target.write_bytes(whole.read_bytes().replace(b"avc1", b"encv"))
    yield bench.swap("encrypted", target, _none, expected="refusal")
    target = bench.place() / "sound.mp4"
    with av.open(str(whole)) as source, av.open(str(target), "w") as output:
        stream = output.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    yield bench.swap("sound alone", target, _none, expected="refusal")
    target = make_film(bench.place() / "film.mp4", [np.full((96, 128, 3), 80, np.uint8)] * 6)
    yield bench.swap("no face in a film", target, _none, expected="refusal")
    target = make_film(bench.place() / "film.mp4", frames[:1], audio=None)
    yield bench.swap("one frame", target, film_check(bench.cast, scenes[:1], lambda n: [0], target))
    odd = [scene([(bench.cast.people[1], at(20, 10))], (231, 243))] * 4

    def odd_sides(stream: Any) -> None:
        stream.pix_fmt = "yuv444p"

    target = make_film(bench.place() / "film.mp4", [each.frame for each in odd], audio=None, prepare=odd_sides)
    yield bench.swap("odd sides", target, film_check(bench.cast, odd, lambda n: [0], target))


def names(bench: Bench) -> Iterator[Case]:
    """Yield cases: names with spaces, quotes and letters of every script; links; suffixes in capitals."""
    whole = portrait_of(bench.cast.people[2])
    check = picture_check(bench.cast, whole, [0])
    titles = (
        "two words.png",
        "percent %03d.png",
        "quote'\".png",
        "Ünïcödé 顔.png",
        "PICTURE.PNG",
        "a;b&c.png",
        "dot.dot.png",
    )
    for name in titles:
        target = bench.place() / name
        Image.fromarray(whole.frame).save(target, format="PNG")
        yield bench.swap(name, target, check, ".png")
    target = bench.place() / "picture.png"
    Image.fromarray(whole.frame).save(target)
    link = target.with_name("link.png")
    link.symlink_to(target)
    yield bench.swap("link", link, check)
    scenes = walk(bench, 4)
    for name in ("film %d.mp4", "Фильм 映画.mp4", "FILM.MP4", "a:b.mp4"):
        target = make_film(bench.place() / name, [each.frame for each in scenes], container="mp4")
        yield bench.swap(name, target, film_check(bench.cast, scenes, lambda n: [0], target), ".mp4")
    folder = bench.place() / "mixed"
    (folder / "deep" / "deeper").mkdir(parents=True)
    Image.fromarray(whole.frame).save(folder / "one.png")
    Image.fromarray(whole.frame).save(folder / "deep" / "deeper" / "two.jpg")
    make_film(folder / "deep" / "three.mov", [each.frame for each in scenes])
    (folder / "notes.txt").write_text("nothing\n")
    (folder / "broken.jpg").write_text("nothing\n")
    out = folder.with_name("out")

    def mixed(outcome: Outcome) -> list[str]:
        expected = ("one.png", "deep/deeper/two.jpg", "deep/three.mov.mp4")
        lost = [name for name in expected if not (outcome.out / name).is_file()]
        return [f"{name} is missing" for name in lost]

    yield Case("a broken picture in a folder", ["swap", bench.cast.source_file, folder, out], mixed, out, "either")


def arguments(bench: Bench) -> Iterator[Case]:
    """Yield cases: wrong arguments are refused in a line that names the remedy, and nothing is written."""
    whole = portrait_of(bench.cast.people[2])
    source = bench.cast.source_file
    place = bench.place()
    target, out = place / "target.png", place / "out.png"
    Image.fromarray(whole.frame).save(target)
    existing, empty, text = place / "existing.png", place / "empty", place / "text.csv"
    shutil.copy(target, existing)
    empty.mkdir()
    text.write_text("a,b\n1,2\n")
    tried: Sequence[tuple[str, Sequence[str | Path], Path]] = (
        ("no target", [source], out),
        ("no result", [source, target], out),
        ("too many", [source, target, out, out], out),
        ("--face zero", ["--face", "0", source, target, out], out),
        ("--face word", ["--face", "left", source, target, out], out),
        ("--face 5 of 1", ["--face", "5", source, target, out], out),
        ("result without suffix", [source, target, place / "result"], place / "result"),
        ("result .bmp", [source, target, place / "out.bmp"], place / "out.bmp"),
        ("result .mp4 of a picture", [source, target, place / "out.mp4"], place / "out.mp4"),
        ("result in a missing folder", [source, target, place / "no" / "out.png"], place / "no" / "out.png"),
        ("source is missing", [place / "no.png", target, out], out),
        ("source is a folder", [empty, target, out], out),
        ("target is missing", [source, place / "no.png", out], out),
        ("target is an empty folder", [source, empty, place / "results"], place / "results"),
        ("result is the source", [target, existing, target], out),
        ("result is the target", [source, target, target], out),
        ("result exists", [source, target, existing], out),
        ("result inside the folder of targets", [source, place, place / "inside"], place / "inside"),
        ("--map without =", ["--map", str(source), target, out], out),
        ("--map of missing files", ["--map", "no.png=none.png", target, out], out),
        ("--map and a source", ["--map", f"{target}={source}", source, target, out], out),
        ("--preview of a picture", ["--preview", "3", source, target, out], out),
        ("--mask that is no component", ["--mask", "cloud", source, target, out], out),
        ("--colour that is none", ["--colour", "sepia", source, target, out], out),
        ("--keep that is none", ["--keep", "everything", source, target, out], out),
        ("--pairs without -o", ["--pairs", text], out),
        ("--pairs without columns", ["--pairs", text, "-o", place / "results"], place / "results"),
        ("--shard of one picture", ["--shard", "1/2", source, target, out], out),
        ("unknown option", ["--faces", "all", source, target, out], out),
        ("--device that is none", ["--device", "abacus", source, target, out], out),
    )
    for name, words, result in tried:
        yield Case(name, ["swap", *words], _none, result, "refusal")
    yield Case("unknown command", ["swop", source, target, out], _none, out, "refusal")
    yield Case("verify a text", ["verify", text], _none, out, "refusal")
    yield Case("extract nothing", ["extract", empty, "-o", place / "faces"], _none, out, "refusal")
    yield Case("swap with an unknown recipe", ["run", "no-such-recipe"], _none, out, "refusal")


def untouched(bench: Bench) -> Iterator[Case]:
    """Yield cases: an existing result is replaced only with --overwrite; a repeated folder continues."""
    whole = portrait_of(bench.cast.people[2])
    target = bench.place() / "target.png"
    Image.fromarray(whole.frame).save(target)
    out = target.with_name("target_out.png")
    out.write_bytes(b"mine")

    def kept(outcome: Outcome) -> list[str]:
        return ["the existing file was replaced"]

    yield bench.swap("existing result", target, kept, expected="refusal")
    yield bench.swap("--overwrite", target, picture_check(bench.cast, whole, [0]), options=["--overwrite"])
    folder = bench.place() / "pictures"
    folder.mkdir()
    shutil.copy(target, folder / "a.png")
    shutil.copy(target, folder / "b.png")
    out = folder.with_name("out")
    words: list[str | Path] = ["swap", bench.cast.source_file, folder, out]
    for time in ("first", "second"):

        def complete(outcome: Outcome, time: str = time) -> list[str]:
            files = {file.name for file in outcome.out.iterdir() if not file.name.startswith(".")}
            found = [] if files == {"a.png", "b.png"} else [f"the results are {files}"]
            is_said = "2 of them from before" in outcome.text
            return found if is_said == (time == "second") else [*found, "the second call swaps again"]

        yield Case(f"folder, {time} call", words, complete, out)


KINDS: dict[str, list[Maker]] = {
    "broken and truncated pictures": [damaged_pictures],
    "broken and truncated films": [damaged_films],
    "names, links and folders": [names],
    "wrong arguments": [arguments],
    "existing results": [untouched],
}
