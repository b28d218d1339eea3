"""Create a study: swap the same pairs by all methods and write the images under anonymous names.

Attention checks are trials of further pairs, one for every ten trials or part of ten, at least two. Their options are
no swaps: the source image, the target image and, with more than two methods, pixelated copies of the target. The source
is the best answer for identity and the target for attributes, and a pixelated image is not realistic. An attentive
participant therefore answers correctly.
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

SIDE = 256  # pixels of every image, or the largest method's size, so that sizes reveal no method
TRIALS_PER_CHECK = 10  # trials for each attention check
MIN_CHECKS = 2  # minimum number of attention checks
SQUARES = 5  # squares on each side of the coarsest pixelated image
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
    """A trial's images, (S, S, 3) uint8, and by question the options that count as attentive."""

    pair: tuple[str, str]
    source: np.ndarray
    target: np.ndarray
    options: list[tuple[str, np.ndarray]]  # (method or kind, image)
    right: dict[str, list[int]]


def make(
    models: Sequence[str | Path],
    folder: Path,
    trials: int = 30,
    seed: int = 0,
    sets: Sequence[str] = (),
    device: str | None = None,
    command: str = "",
) -> Study:
    """Create a study atomically: `folder` gets study.json, consent.txt and pictures/.

    Parameters
    ----------
    models:
        The methods, two to nine, as `store.load` accepts them.
    folder:
        A new or an empty folder.
    trials:
        Number of pairs, without the attention checks. They are drawn from the pairs of the first method's recipe.
    seed:
        Seed of the pairs, and of the orders in which participants see trials and results.
    sets:
        Overrides of the first method's recipe, such as `evaluation.pairs=lfw`.
    device:
        A torch device; None selects the GPU if there is one.
    command:
        The command line, stored in study.json.

    Raises
    ------
    UserError
        The folder is not empty, a method cannot be loaded or does not support a source, or there are too few methods or
        pairs.
    """
    if not 2 <= len(models) <= MOST:
        raise UserError(f"MODEL...: {len(models)} given, and a study compares 2 to {MOST} methods; name as many")
    check_new(folder)
    methods = load_methods(models, sets, device)
    names, first = names_of(methods), methods[0]
    plan = plan_of(first.recipe)
    size = max(trained.recipe.size for trained in methods)
    _, pairs = at_size(first.recipe, plan, size)
    trial_pairs, checks = _draw(pairs, trials, seed)
    swaps = {name: _swaps(trained, first, plan, trial_pairs) for name, trained in zip(names, methods, strict=True)}
    trial_images = [*_trials(trial_pairs, swaps), *_checks(checks, len(methods))]
    descriptions = [_describe(*entry) for entry in zip(names, models, methods, strict=True)]
    about = {"command": command, "evaluation": plan.model_dump(mode="json"), "manifest": environment(first.device)}
    return write(folder, descriptions, trial_images, seed, about)


def write(folder: Path, methods: Sequence[Method], trials: Sequence[Shown], seed: int, about: dict[str, Any]) -> Study:
    """Write a study from existing images atomically, and return it.

    Parameters
    ----------
    folder:
        A new or an empty folder.
    methods:
        The compared methods.
    trials:
        The trials, each with an option for every method, in their order. An attention check has as many other options.
    seed:
        Seed of the orders that participants see.
    about:
        `command`, `evaluation` and `manifest` of study.json.

    Raises
    ------
    UserError
        The folder is not empty, or cannot be written.
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
            trials=[_write_trial(trial, temporary / PICTURES, side) for trial in trials],
            **about,
        )
        write_text(temporary / PLAN, study.model_dump_json(indent=2) + "\n")
        write_text(temporary / CONSENT, Path(__file__).with_name(CONSENT).read_text(encoding="utf-8"))
    return study


def _draw(pairs: EvaluationPairs, trials: int, seed: int) -> tuple[EvaluationPairs, EvaluationPairs]:
    """Draw pairs for trials and others for attention checks. Raise UserError if there are too few."""
    checks = max(MIN_CHECKS, -(-trials // TRIALS_PER_CHECK))
    if trials + checks > len(pairs.pairs):
        raise UserError(
            f"--trials {trials}: needs {trials + checks} pairs with the {checks} attention checks, and there are "
            f"{len(pairs.pairs)}; choose fewer trials, or more pairs with --pairs"
        )
    indices = np.random.default_rng(seed).permutation(len(pairs.pairs))[: trials + checks]
    drawn = [pairs.pairs[index] for index in indices]
    return replace(pairs, pairs=drawn[:trials]), replace(pairs, pairs=drawn[trials:])


def _swaps(trained: Trained, first: Trained, plan: Evaluation, trial_pairs: EvaluationPairs) -> list[np.ndarray]:
    """Return a method's swaps of the pairs, (S, S, 3) uint8. Raise UserError if it does not support a source."""
    _, sized_pairs = at_size(first.recipe, plan, trained.recipe.size)
    swapper, images = trained.swapper, []
    for swapped in Swaps(replace(sized_pairs, pairs=trial_pairs.pairs), swapper, trained.device):
        if not bool(swapper.generator.supports(swapped.z_id, swapper.identity).all()):
            raise UserError(
                f"{trained.recipe.name}: supports only people of its training data, and not every source of these "
                "pairs is one of them; leave it out, or choose pairs of its people with --set data=... and --pairs"
            )
        images += list(swapped.image)
    return images


def _pictures(pairs: EvaluationPairs) -> Iterator[tuple[tuple[str, str], np.ndarray, np.ndarray]]:
    """Yield for each pair the names and the images (S, S, 3) uint8 of source and target."""
    names, remaining = pairs.dataset.names(), iter(pairs.pairs)
    for batch in pairs:
        for source_image, target_image in zip(
            to_images(batch.source.image), to_images(batch.target.image), strict=True
        ):
            source, target = next(remaining)
            yield (names[source], names[target]), source_image, target_image


def _trials(trial_pairs: EvaluationPairs, swaps: dict[str, list[np.ndarray]]) -> Iterator[Shown]:
    for number, (pair, source, target) in enumerate(_pictures(trial_pairs)):
        yield Shown(pair, source, target, [(name, images[number]) for name, images in swaps.items()], {})


def _checks(pairs: EvaluationPairs, count: int) -> Iterator[Shown]:
    """Yield attention checks with `count` options each."""
    for pair, source, target in _pictures(pairs):
        options = [("source", source), ("target", target)]
        options += [("degraded", in_squares(target, SQUARES + number)) for number in range(count - len(options))]
        right = {"identity": [0], "attributes": [1]} | ({"realism": [0, 1]} if count > 2 else {})
        yield Shown(pair, source, target, options, right)


def in_squares(image: np.ndarray, count: int) -> np.ndarray:
    """Return a pixelated image (S, S, 3) uint8 with `count` squares on each side."""
    coarse = cv2.resize(image, (count, count), interpolation=cv2.INTER_AREA)
    return cv2.resize(coarse, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)


def _write_trial(trial: Shown, folder: Path, side: int) -> Trial:
    """Write a trial's images to a folder and return the trial; only images of methods are marked as synthetic."""

    def write(image: np.ndarray, synthetic: bool = False) -> str:
        name = f"{secrets.token_hex(16)}.png"
        large = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)  # unchanged if it has this size
        write_image(folder / name, large, synthetic=synthetic)
        return name

    return Trial(
        pair=trial.pair,
        source=write(trial.source),
        target=write(trial.target),
        options=[Option(what=what, picture=write(image, not trial.right)) for what, image in trial.options],
        right=trial.right,
    )


def _describe(name: str, model: str | Path, trained: Trained) -> Method:
    return Method(
        name=name,
        model=str(model),
        recipe_sha256=trained.recipe.digest(),
        weights_sha256={file.name: hashlib.sha256(read(file)).hexdigest() for file in weights_files(model)},
        size=trained.recipe.size,
        known_people=isinstance(trained.swapper.generator, ClosedSetGenerator),
    )
