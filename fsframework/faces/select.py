"""Select faces of an image: the largest, all, or one by its number."""

from fsframework.core.errors import UserError
from fsframework.core.types import Face


def area(face: Face) -> float:
    """Return the area of a face's box, in pixels."""
    left, top, right, bottom = face.box
    return float((right - left) * (bottom - top))


def largest(faces: list[Face]) -> Face:
    """Return the face whose box has the largest area."""
    return max(faces, key=area)


def check_face(face: str) -> None:
    """Raise UserError unless `face` is "largest", "all" or a number from 1."""
    if face not in ("largest", "all") and not (face.isdecimal() and int(face) > 0):
        raise UserError(f"face: {face!r} selects no face; use largest, all, or a number, counted from the left from 1")


def choose(faces: list[Face], face: str, name: str) -> list[Face]:
    """Return the faces that `face` selects (see `FaceSwapper`).

    Raises UserError, with `name`, if there is no such face.
    """
    check_face(face)
    if face == "largest":
        return [largest(faces)]
    if face == "all":
        return sorted(faces, key=area)  # the larger of two overlapping faces, which is nearer, is pasted last
    if int(face) > len(faces):
        raise UserError(f"{name}: face {face} was requested, {len(faces)} found; count from the left from 1")
    return [sorted(faces, key=lambda candidate: candidate.box[0] + candidate.box[2])[int(face) - 1]]
