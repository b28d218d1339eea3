"""Report faces that are much larger than the crops that a model generates, or too small for a likeness."""

from collections.abc import Collection, Iterable

from fsframework.core.types import Face
from fsframework.faces.align import crop_side
from fsframework.models import store

MAX_ENLARGEMENT = 2.0  # from the model's crop to the frame, above which softness is reported
SMALL = 20  # pixels of a face's shorter side, below which a swap can hardly show who it is
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


def small_faces_note(faces: Iterable[Face]) -> str | None:
    """Return a line on swapped faces under `SMALL` pixels, and what to do; None if there are none."""
    sides = [float(min(face.box[2] - face.box[0], face.box[3] - face.box[1])) for face in faces]
    small = [side for side in sides if side < SMALL]
    if not small:
        return None
    which = "a face has" if len(small) == 1 else f"{len(small)} faces have at least"
    return f"{which} {int(min(small))} px, too few to show a likeness; use a larger target, or choose by --face"


def size_note(faces: Collection[Face], size: int) -> str | None:
    """Return the lines of `soft_swap_note` and `small_faces_note` as one; None if there is neither."""
    notes = (soft_swap_note(faces, size), small_faces_note(faces))
    return "; ".join(note for note in notes if note is not None) or None
