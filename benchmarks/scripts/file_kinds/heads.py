"""Heads that are turned, cut by the frame's edge, very large or very small."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from films import make_film
from PIL import Image

from file_kinds.case import Bench, Case, Check, Maker, Outcome, said
from file_kinds.look import CODEC, film, film_check, picture, picture_check
from file_kinds.people import Person, Scene, at, away_problems, change, moved, portrait_of, scene
from fsframework.core.types import Face
from fsframework.faces.align import crop_side

ORIENTATION = 0x0112
PLACES = {0: "left", 1: "top", 2: "right", 3: "bottom"}
SMEAR = 12.0  # grey levels by which the swap of a cut face differs at most from that of the whole one, where it shows
TINY = 20  # pixels of a face's box, below which a word is due


def turned(person: Person, angle: float, side: int = 420) -> Scene:
    """Return a person turned clockwise in the middle of a square picture."""
    height, width = person.picture.shape[:2]
    middle = (width / 2, height / 2)
    matrix = at(side / 2 - middle[0], side / 2 - middle[1], 1.0, angle, middle)
    return scene([(person, matrix)], (side, side))


def written(bench: Bench, frame: np.ndarray, name: str = "target.png") -> Path:
    """Write a picture to a new folder; return its path."""
    file = bench.place() / name
    Image.fromarray(frame).save(file)
    return file


def turned_pictures(bench: Bench) -> Iterator[Case]:
    """Yield cases: heads at any angle: swapped in their own frame."""
    cast = bench.cast
    subjects = [("portrait", cast.portrait), ("ORL", cast.people[3]), ("rendered", cast.heads[0])]
    for name, person in subjects:
        for angle in (30, 60, 90, 135, 180, 225, 270, 320):
            side = 560 if name == "portrait" else 420
            whole = turned(person, angle, side)
            target = written(bench, whole.frame)
            check = picture_check(cast, whole, [0])
            yield bench.swap(f"{name} turned by {angle} degrees", target, check, portable=True)


def orientations(bench: Bench) -> Iterator[Case]:
    """Yield cases: the eight orientations of EXIF: displayed upright, before and after."""
    whole = portrait_of(bench.cast.people[1])
    undo = [None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM]
    undo += [
        Image.Transpose.TRANSPOSE,
        Image.Transpose.ROTATE_90,
        Image.Transpose.TRANSVERSE,
        Image.Transpose.ROTATE_270,
    ]
    for orientation, turn in enumerate(undo, 1):
        image = Image.fromarray(whole.frame)
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        target = bench.place() / "target.png"
        (image if turn is None else image.transpose(turn)).save(target, exif=exif)
        check = picture_check(bench.cast, whole, [0])
        yield bench.swap(f"EXIF orientation {orientation}", target, check, portable=True)


def turned_films(bench: Bench) -> Iterator[Case]:
    """Yield cases: films of lying heads, with and without a tag that turns them upright."""
    cast = bench.cast
    for angle in (90, 180, 270):
        whole = turned(cast.people[angle // 90], angle, 320)
        scenes = [whole] * 8
        target = make_film(bench.place() / "lying.mp4", [each.frame for each in scenes], audio=None)
        yield bench.swap(f"lying head, {angle} degrees", target, film_check(cast, scenes, lambda n: [0], target))
    for turns in (1, 2, 3):
        whole = portrait_of(cast.people[turns], 28)
        stored = np.ascontiguousarray(np.rot90(whole.frame, -turns))
        plain = make_film(bench.place() / "plain.mp4", [stored] * 8)
        target = tagged(plain, turns)
        yield bench.swap(f"tag of {90 * turns} degrees", target, film_check(cast, [whole] * 8, lambda n: [0], target))


def tagged(plain: Path, turns: int, mirrored: bool = False) -> Path:
    """Return a copy of an MP4 file whose matrix turns its pictures counter-clockwise by quarters."""
    angle = np.radians(90 * turns)
    cos, sin = round(np.cos(angle)), round(np.sin(angle))
    matrix = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 0]])
    if mirrored:
        matrix[0] = -matrix[0]
    units = [*(matrix[0] << 16), *(matrix[1] << 16), 0, 0, 1 << 30]
    data = bytearray(plain.read_bytes())
    place = data.find(b"tkhd") + 4 + 40
    data[place : place + 36] = b"".join(int(value).to_bytes(4, "big", signed=True) for value in units)
    target = plain.with_name("tagged.mp4")
    target.write_bytes(data)
    return target


def extracted(bench: Bench) -> Iterator[Case]:
    """Yield cases: `fsf extract` writes lying heads upright."""
    for angle in (0, 90, 180, 270):
        person = bench.cast.people[4]
        target = written(bench, turned(person, angle).frame)
        out = target.with_name("faces")

        def check(outcome: Outcome, person: Person = person) -> list[str]:
            crops = sorted(outcome.out.rglob("*.png")) + sorted(outcome.out.rglob("*.jpg"))
            if len(crops) != 1:
                return [f"{len(crops)} crops instead of one"]
            crop = picture(crops[0])
            found = bench.cast.swapper.face_swapper.detector([crop])[0]
            if not found:
                return ["the crop shows no upright face"]
            cosine = bench.cast.cosine((crop, found[0]), person)
            return [] if cosine > 0.5 else [f"the crop's face has cosine {cosine:.2f} to the person"]

        yield Case(f"extract, {angle} degrees", ["extract", target, "-o", out, "--device", "cpu"], check, out)


def cut(whole: Scene, side: int, share: float) -> tuple[np.ndarray, Face]:
    """Return a picture without a share of the face's crop at a side (see `PLACES`), and its face."""
    face = whole.faces[0]
    reach = crop_side(face)
    middle = face.landmarks.mean(axis=0) - (0, 0.11 * reach)
    low, high = middle - reach / 2 + share * reach, middle + reach / 2 - share * reach
    height, width = whole.frame.shape[:2]
    left, top = (max(0, int(low[axis])) if side == axis else 0 for axis in (0, 1))
    right, bottom = (int(high[axis]) if side == axis + 2 else (width, height)[axis] for axis in (0, 1))
    right, bottom = left + (right - left) // 2 * 2, top + (bottom - top) // 2 * 2
    return np.ascontiguousarray(whole.frame[top:bottom, left:right]), moved(face, at(-left, -top))


def cut_check(bench: Bench, whole: Scene, frame: np.ndarray, face: Face, read: Callable[[Path], np.ndarray]) -> Check:
    """Return the check of a cut face: left alone with a word, or swapped like the whole one where it shows."""
    reference = bench.cast.swapper.swap(bench.cast.source.picture, whole.frame, provenance=False).image
    offset = np.rint(whole.faces[0].landmarks - face.landmarks)[0].astype(int)

    def check(outcome: Outcome) -> list[str]:
        after = read(outcome.out)
        if after.shape != frame.shape:
            return [f"the result has the shape {after.shape}"]
        found = away_problems(frame, after, [face], CODEC)
        if change(frame, after, face) < 3.0:
            return found + said(outcome, "cut", "edge", "left alone", "left out")
        height, width = frame.shape[:2]
        expected = reference[offset[1] : offset[1] + height, offset[0] : offset[0] + width]
        levels = change(expected, after, face)
        return (
            found
            if levels <= SMEAR
            else [*found, f"the swap differs by {levels:.0f} levels from that of the whole face"]
        )

    return check


def cut_pictures(bench: Bench) -> Iterator[Case]:
    """Yield cases: faces of which the frame cuts off a part."""
    for name, person in (("portrait", bench.cast.portrait), ("ORL", bench.cast.people[5])):
        whole = portrait_of(person, 40)
        for side, word in PLACES.items():
            for share in (0.25, 0.35, 0.45):
                frame, face = cut(whole, side, share)
                target = written(bench, frame)
                check = cut_check(bench, whole, frame, face, picture)
                title = f"{name}, {share:.0%} of the crop cut off at the {word}"
                yield bench.swap(title, target, check, expected="either", portable=name == "ORL")


def cut_films(bench: Bench) -> Iterator[Case]:
    """Yield cases: the same in films."""
    whole = portrait_of(bench.cast.people[0], 40)
    for side, word in PLACES.items():
        for share in (0.25, 0.45):
            frame, face = cut(whole, side, share)
            target = make_film(bench.place() / "cut.mp4", [frame] * 8, audio=None)
            check = cut_check(bench, whole, frame, face, lambda file: film(file).frames[4])
            yield bench.swap(f"film, {share:.0%} cut off at the {word}", target, check, expected="either")


def sizes(bench: Bench) -> Iterator[Case]:
    """Yield cases: very large and very small faces: a word is said once."""
    cast = bench.cast
    person = cast.portrait
    for scale in (2.5, 5.0):
        height, width = person.picture.shape[:2]
        whole = scene([(person, at(0, 0, scale))], (int(scale * width), int(scale * height)))

        def large(outcome: Outcome, whole: Scene = whole) -> list[str]:
            found = picture_check(cast, whole, [0])(outcome)
            return found if outcome.out.name.startswith("serve") else found + said(outcome, "softer")

        name = f"head of {crop_side(whole.faces[0]):.0f} px"
        yield bench.swap(name, written(bench, whole.frame), large, portable=True)
    for pixels in (10, 14, 18, 24, 36):
        scale = pixels / float(person.face.box[2] - person.face.box[0])
        whole = scene([(person, at(60, 60, scale))], (240, 180))

        def small(outcome: Outcome, whole: Scene = whole, pixels: int = pixels) -> list[str]:
            after = picture(outcome.out)
            found = away_problems(whole.frame, after, whole.faces, max(1.0, outcome.levels))
            if change(whole.frame, after, whole.faces[0]) < 3:
                found.append("the face is not swapped")
            if pixels < TINY and not outcome.out.name.startswith("serve"):
                found += said(outcome, "small", "px")
            return found

        yield bench.swap(f"face of {pixels} px", written(bench, whole.frame), small, expected="either", portable=True)
    tiny = scene([(person, at(60, 60, 18 / float(person.face.box[2] - person.face.box[0])))], (240, 180))
    target = make_film(bench.place() / "small.mp4", [tiny.frame] * 6, audio=None)
    yield bench.swap("film, face of 18 px", target, lambda outcome: said(outcome, "small", "px"), expected="either")


KINDS: dict[str, list[Maker]] = {
    "turned heads in pictures": [turned_pictures],
    "orientations of EXIF": [orientations],
    "turned heads in films": [turned_films],
    "turned heads, fsf extract": [extracted],
    "faces cut by the edge, pictures": [cut_pictures],
    "faces cut by the edge, films": [cut_films],
    "very large and very small faces": [sizes],
}
