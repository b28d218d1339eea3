"""Make a study: swap the same pairs by all methods and write the pictures under names that say nothing.

Attention checks are trials of further pairs, one for every ten trials that were begun, at least two. Their options are
no swaps: the source's own picture, the target's own picture and, where there are more than two methods, the target's
picture in coarse squares. Nothing looks more like the source than the source, nothing is more like the target than the
target, and a picture in squares is not the realistic one; whoever looks at the pictures answers so.
"""

import datetime
import hashlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from fsframework.core.bases import ClosedSetGenerator
from fsframework.core.errors import UserError
from fsframework.data.eval_pairs import EvaluationPairs
from fsframework.evaluation.baselines import Swaps
from fsframework.evaluation.compare import at_size, load_methods, names_of
from fsframework.evaluation.evaluate import plan_of
from fsframework.media.image_io import write_image
from fsframework.media.tensor import to_images
from fsframework.models.store import Trained, weights_files
from fsframework.recipe.schema import Evaluation
from fsframework.utils.environment import environment
from fsframework.utils.files import check_new, making, write_text
from fsframework.utils.weights import read
from fsframework.web.study.plan import CONSENT, MOST, PICTURES, PLAN, Method, Option, Question, Study, Trial

SIDE = 256  # pixels of every picture, or more where a method paints more, so that no size gives a method away
STRETCH = 10  # trials for each attention check
LEAST = 2  # attention checks
SQUARES = 5  # on each side of the coarsest degraded picture
QUESTIONS = [
    Question(id="identity", text="Which result looks most like the person in the source picture?", beside="source"),
    Question(
        id="attributes",
        text="Which result is most like the target picture in head pose, expression and lighting?",
        beside="target",
    ),
    Question(id="realism", text="Which result looks most like a real photograph?", beside=None),
]


class Shown(NamedTuple):
    """A trial's pictures, (S, S, 3) uint8, and the options that an attentive person may choose, by question."""

    pair: tuple[str, str]
    source: np.ndarray
    target: np.ndarray
    options: list[tuple[str, np.ndarray]]  # with what they are
    right: dict[str, list[int]]


def make(
    wheres: Sequence[str | Path],
    folder: Path,
    trials: int = 30,
    seed: int = 0,
    sets: Sequence[str] = (),
    device: str | None = None,
    command: str = "",
) -> Study:
    """Make a study in one step: `folder` gets study.json, consent.txt and pictures/, or does not come to be.

    Parameters
    ----------
    wheres:
        The methods, two to nine, as `models.load` takes them.
    folder:
        A new or an empty one.
    trials:
        Pairs to ask about, besides the attention checks. They are drawn from the list of the first method's recipe.
    seed:
        Draws the pairs, and later the orders in which participants see trials and results.
    sets:
        Overrides of the first method's recipe, such as `evaluation.pairs=lfw`.
    device:
        As torch names it; None: the GPU if there is one.
    command:
        Is kept in study.json.

    Raises
    ------
    UserError
        The folder holds something, a method cannot be loaded or does not know a pair's source, or there are too few
        methods or pairs.
    """
    if not 2 <= len(wheres) <= MOST:
        raise UserError(f"MODEL...: {len(wheres)} given, and a study compares 2 to {MOST} methods; name so many")
    check_new(folder)
    methods = load_methods(wheres, sets, device)
    names, first = names_of(methods), methods[0]
    plan = plan_of(first.recipe)
    size = max(trained.recipe.size for trained in methods)
    _, pairs = at_size(first.recipe, plan, size)
    asked, checks = _draw(pairs, trials, seed)
    swaps = {name: _swaps(trained, first, plan, asked) for name, trained in zip(names, methods, strict=True)}
    shown = [*_trials(asked, swaps), *_checks(checks, len(methods))]
    described = [_described(*each) for each in zip(names, wheres, methods, strict=True)]
    about = {"command": command, "evaluation": plan.model_dump(mode="json"), "manifest": environment(first.device)}
    return write(folder, described, shown, seed, about)


def write(folder: Path, methods: Sequence[Method], trials: Sequence[Shown], seed: int, about: dict[str, Any]) -> Study:
    """Write a study of pictures that are made already, in one step.

    Parameters
    ----------
    folder:
        A new or an empty one.
    methods:
        What is compared.
    trials:
        Each with an option for every method, in their order, or for an attention check as many others.
    seed:
        Of the orders that participants see.
    about:
        `command`, `evaluation` and `manifest` of study.json.

    Raises
    ------
    UserError
        The folder holds something, or cannot be written.
    """
    side = max(SIDE, *(method.size for method in methods))
    with making(folder) as temporary:
        (temporary / PICTURES).mkdir()
        study = Study(
            id=secrets.token_hex(8),
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            seed=seed,
            side=side,
            methods=list(methods),
            questions=QUESTIONS,
            trials=[_written(trial, temporary / PICTURES, side) for trial in trials],
            **about,
        )
        write_text(temporary / PLAN, study.model_dump_json(indent=2) + "\n")
        write_text(temporary / CONSENT, Path(__file__).with_name(CONSENT).read_text(encoding="utf-8"))
    return study


def _draw(pairs: EvaluationPairs, trials: int, seed: int) -> tuple[EvaluationPairs, EvaluationPairs]:
    """Pairs for trials and others for checks, drawn from the list. Raises UserError if it is too short."""
    checks = max(LEAST, -(-trials // STRETCH))
    if trials + checks > len(pairs.pairs):
        raise UserError(
            f"--trials {trials}: needs {trials + checks} pairs with the {checks} attention checks, and there are "
            f"{len(pairs.pairs)}; ask for fewer trials, or name more pairs with --pairs"
        )
    places = np.random.default_rng(seed).permutation(len(pairs.pairs))[: trials + checks]
    drawn = [pairs.pairs[place] for place in places]
    return replace(pairs, pairs=drawn[:trials]), replace(pairs, pairs=drawn[trials:])


def _swaps(trained: Trained, first: Trained, plan: Evaluation, asked: EvaluationPairs) -> list[np.ndarray]:
    """A method's swaps of the pairs, (S, S, 3) uint8. Raises UserError if it does not know a source."""
    _, own = at_size(first.recipe, plan, trained.recipe.size)
    swapper, images = trained.swapper, []
    for swapped in Swaps(replace(own, pairs=asked.pairs), swapper, trained.device):
        if not bool(swapper.generator.supports(swapped.z_id, swapper.identity).all()):
            raise UserError(
                f"{trained.recipe.name}: paints only people whom it was trained on, and not everybody in these pairs "
                "is one of them; leave it out, or take pairs of its people with --set data=... and --pairs"
            )
        images += list(swapped.image)
    return images


def _pictures(pairs: EvaluationPairs) -> Iterator[tuple[tuple[str, str], np.ndarray, np.ndarray]]:
    """Of each pair the names and the pictures (S, S, 3) uint8 of source and target."""
    names, places = pairs.dataset.names(), iter(pairs.pairs)
    for batch in pairs:
        for one, other in zip(to_images(batch.source.image), to_images(batch.target.image), strict=True):
            source, target = next(places)
            yield (names[source], names[target]), one, other


def _trials(asked: EvaluationPairs, swaps: dict[str, list[np.ndarray]]) -> Iterator[Shown]:
    for number, (pair, source, target) in enumerate(_pictures(asked)):
        yield Shown(pair, source, target, [(name, images[number]) for name, images in swaps.items()], {})


def _checks(pairs: EvaluationPairs, count: int) -> Iterator[Shown]:
    """Attention checks with so many options."""
    for pair, source, target in _pictures(pairs):
        options = [("source", source), ("target", target)]
        options += [("degraded", in_squares(target, SQUARES + number)) for number in range(count - len(options))]
        right = {"identity": [0], "attributes": [1]} | ({"realism": [0, 1]} if count > 2 else {})
        yield Shown(pair, source, target, options, right)


def in_squares(image: np.ndarray, count: int) -> np.ndarray:
    """A picture (S, S, 3) uint8 in coarse squares, so many on each side."""
    coarse = cv2.resize(image, (count, count), interpolation=cv2.INTER_AREA)
    return cv2.resize(coarse, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)


def _written(trial: Shown, folder: Path, side: int) -> Trial:
    """A trial whose pictures are in the folder; only a method's are marked as synthetic."""

    def write(image: np.ndarray, synthetic: bool = False) -> str:
        name = f"{secrets.token_hex(16)}.png"
        large = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)  # the same picture, if it has this size
        write_image(folder / name, large, synthetic=synthetic)
        return name

    return Trial(
        pair=trial.pair,
        source=write(trial.source),
        target=write(trial.target),
        options=[Option(what=what, picture=write(image, not trial.right)) for what, image in trial.options],
        right=trial.right,
    )


def _described(name: str, where: str | Path, trained: Trained) -> Method:
    return Method(
        name=name,
        model=str(where),
        recipe_sha256=trained.recipe.digest(),
        weights_sha256={file.name: hashlib.sha256(read(file)).hexdigest() for file in weights_files(where)},
        size=trained.recipe.size,
        known_people=isinstance(trained.swapper.generator, ClosedSetGenerator),
    )
