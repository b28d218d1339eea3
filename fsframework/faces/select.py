"""Select faces of a picture: the largest, all, or one by its number."""

from fsframework.core.errors import UserError
from fsframework.core.types import Face


def area(face: Face) -> float:
    """Of its box, in pixels."""
    left, top, right, bottom = face.box
    return float((right - left) * (bottom - top))


def largest(faces: list[Face]) -> Face:
    """By the area of its box."""
    return max(faces, key=area)


def check_face(face: str) -> None:
    """Raise UserError unless `face` is "largest", "all" or a number from 1."""
    if face not in ("largest", "all") and not (face.isdecimal() and int(face) > 0):
        raise UserError(f"face: {face!r} says no face; write largest, all, or a number counted from the left from 1")


def choose(faces: list[Face], face: str, name: str) -> list[Face]:
    """The faces that `face` means (see `FaceSwapper`). Raises UserError, with `name`, if there is no such face."""
    check_face(face)
    if face == "largest":
        return [largest(faces)]
    if face == "all":
        return sorted(faces, key=area)  # where two meet, the larger one, which is nearer, comes on top
    if int(face) > len(faces):
        raise UserError(f"{name}: face {face} was asked for, {len(faces)} found; count from the left from 1")
    return [sorted(faces, key=lambda each: each.box[0] + each.box[2])[int(face) - 1]]
