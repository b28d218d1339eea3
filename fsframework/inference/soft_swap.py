"""Report faces whose swaps look soft, because they are much larger than a model's crops, and very small ones."""

from collections.abc import Iterable, Sequence

import numpy as np

from fsframework.core.types import Face
from fsframework.faces.align import crop_side
from fsframework.models import store

MAX_ENLARGEMENT = 2.0  # from the model's crop to the frame, above which softness is reported
SMALL = 20  # shorter side of a face's box in pixels, below which a swap shows little of the source
LARGEST_RECIPE = ("faceshifter-256", 256)  # the bundled recipe with the largest crops, and their side in pixels


def soft_swap_note(faces: Iterable[Face], size: int) -> str | None:
    """Return a line on the largest of the swapped faces if its swap is soft, and what to do; None if it is not.

    Parameters
    ----------
    faces:
        The swapped faces, in pixels of their frames.
    size:
        The side of the model's crops in pixels.
    """
    side = max((crop_side(face) for face in faces), default=0.0)
    if side <= MAX_ENLARGEMENT * size:
        return None
    problem = f"a head of {side:.0f} px is generated at {size} px, so its swap is softer than its surroundings"
    larger, larger_size = store.largest_swapper()
    if larger_size > size:
        return f"{problem}; use the model {larger}, which generates {larger_size} px"
    remedy = f"scale the target to {100 * MAX_ENLARGEMENT * size / side:.0f} %"
    recipe, recipe_size = LARGEST_RECIPE
    if recipe_size > size:
        remedy += f", or train a model with larger crops (fsf run {recipe})"
    return f"{problem}; {remedy}"


def small_face_note(faces: Iterable[Face]) -> str | None:
    """Return a line if one of the swapped faces is very small, and what to do; None if none is."""
    if all(np.min(face.box[2:] - face.box[:2]) >= SMALL for face in faces):
        return None
    return f"a face is smaller than {SMALL} px, so its swap shows little of the source; use a target with larger faces"


def size_note(faces: Sequence[Face], size: int) -> str | None:
    """Return the notes on very large and very small swapped faces as one line, or None."""
    notes = [note for note in (soft_swap_note(faces, size), small_face_note(faces)) if note is not None]
    return "; ".join(notes) or None
