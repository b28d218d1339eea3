"""Report faces that are much larger than the crops that a model generates, so that their swaps look soft."""

from collections.abc import Iterable

from fsframework.core.types import Face
from fsframework.faces.align import crop_side
from fsframework.models import store

MAX_ENLARGEMENT = 2.0  # from the model's crop to the frame, above which softness is reported
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
