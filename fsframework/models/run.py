"""A run directory: the resolved recipe, where and with what it ran, checkpoints, log, and results.

recipe.yaml      every default written out; a run continues only with the same recipe
manifest.json    versions, plugins, device, seed, commit
log.jsonl        a line every few steps
checkpoints/     NAME.safetensors: weights of a finished stage; NAME.step-N.safetensors: everything to go on from
                 step N, bit for bit; NAME.prepared.safetensors: what was computed once when the stage started
metrics.json, samples/, report.html
"""

import datetime
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fsframework.core.errors import UserError
from fsframework.core.swapper import Swapper
from fsframework.recipe.build import build_swapper
from fsframework.recipe.schema import Recipe, Stage
from fsframework.utils.device import pick_device
from fsframework.utils.environment import environment
from fsframework.utils.files import write_text
from fsframework.utils.weights import below, fill, load_metadata, load_state, save_state

KEPT_STATES = 2  # the newest states of a stage that stay on disk


class Run:
    """One training run and its directory. Make it with `Run.open` or `Run.load`."""

    def __init__(self, recipe: Recipe, path: Path, device: torch.device) -> None:
        self.recipe = recipe
        self.path = path
        self.device = device

    @classmethod
    def open(
        cls, recipe: Recipe, path: Path, resume: bool = False, overwrite: bool = False, device: str | None = None
    ) -> "Run":
        """A run that will be trained: a new directory, or one to go on in.

        Raises
        ------
        UserError
            The directory holds something else, another recipe's run, or a run and neither flag is given.
        """
        path = Path(path)
        run = cls(recipe, path, pick_device(device))
        if run.check_place(resume, overwrite) and not resume:
            shutil.rmtree(path)
        try:
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{path}: cannot be made: {error.strerror or error}; choose another with --out") from error
        for leftover in (path / "checkpoints").glob(".*"):  # of a process that was killed while writing
            leftover.unlink()
        if not resume:
            write_text(path / "recipe.yaml", recipe.dump_yaml())
        run._write_manifest()
        return run

    @classmethod
    def load(cls, path: Path, device: str | None = None, sets: Sequence[str] = ()) -> "Run":
        """A run that is only read, with its recipe changed by `sets`. Raises UserError if there is none."""
        path = Path(path)
        if not (path / "recipe.yaml").is_file():
            raise UserError(f"{path}: is no run directory (it has no recipe.yaml); give the --out of an `fsf run`")
        return cls(Recipe.load(str(path / "recipe.yaml"), sets), path, pick_device(device))

    def check_place(self, resume: bool, overwrite: bool) -> bool:
        """Whether the directory holds a run. Raises UserError where `open` would; nothing is changed."""
        path = self.path
        occupied = path.exists() and (not path.is_dir() or any(path.iterdir()))
        if occupied and not (path / "recipe.yaml").is_file():
            raise UserError(f"{path}: exists and is no run directory; choose another with --out")
        if resume:
            if not occupied:
                raise UserError(f"{path}: holds no run to go on with; leave --resume out to start one")
            self._check_same_recipe()
        elif occupied and not overwrite:
            raise UserError(f"{path}: holds a run already; --resume goes on with it, --overwrite replaces it")
        return occupied

    def _check_same_recipe(self) -> None:
        kept = Recipe.load(str(self.path / "recipe.yaml"))
        if kept.digest() != self.recipe.digest():
            where = first_difference(kept.dump(), self.recipe.dump())
            raise UserError(
                f"{self.path}: --resume goes on with the same recipe only, and {where} differs; "
                "undo that, or start another run with --out"
            )

    def _write_manifest(self) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        known = self.manifest() if (self.path / "manifest.json").is_file() else {}
        manifest = {
            "recipe": self.recipe.name,
            "recipe_sha256": self.recipe.digest(),
            "seed": self.recipe.seed,
            "date": known.get("date", now),
            "resumed": [*known.get("resumed", []), now] if known else [],
            **environment(self.device),
        }
        write_text(self.path / "manifest.json", json.dumps(manifest, indent=2) + "\n")

    def manifest(self) -> dict[str, Any]:
        """What is known of where the run ran. Raises UserError if it cannot be read."""
        try:
            return dict(json.loads((self.path / "manifest.json").read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path / 'manifest.json'}: cannot be read: {error}") from error

    def weights_file(self, stage: Stage) -> Path:
        """The weights that a finished stage leaves."""
        return self.path / "checkpoints" / f"{stage.name}.safetensors"

    def finished(self, stage: Stage) -> bool:
        """Whether a stage has been trained to its end."""
        return self.weights_file(stage).is_file()

    def prepared_file(self, stage: Stage) -> Path:
        """What a stage computed once when it started."""
        return self.path / "checkpoints" / f"{stage.name}.prepared.safetensors"

    def states(self, stage: Stage) -> list[Path]:
        """Training states of a stage, oldest first."""
        found = (self.path / "checkpoints").glob(f"{stage.name}.step-*.safetensors")
        return sorted(found, key=lambda file: int(file.stem.rpartition("-")[2]))

    def save_training_state(self, stage: Stage, step: int, tensors: Mapping[str, Tensor]) -> Path:
        """Write everything that training needs to go on after `step` steps; then delete older states."""
        file = self.path / "checkpoints" / f"{stage.name}.step-{step:08d}.safetensors"
        save_state(file, tensors, {"step": str(step), "recipe_sha256": self.recipe.digest()})
        for old in self.states(stage)[:-KEPT_STATES]:
            old.unlink()
        return file

    def load_training_state(self, stage: Stage) -> tuple[int, dict[str, Tensor]] | None:
        """The newest state (steps done, tensors), or None. Raises UserError if it is damaged."""
        states = self.states(stage)
        if not states:
            return None
        newest = states[-1]
        try:
            return int(load_metadata(newest)["step"]), load_state(newest)
        except (UserError, KeyError) as error:
            older = (
                f"delete it to go on from {states[-2].name}"
                if len(states) > 1
                else "delete it to start the stage again"
            )
            raise UserError(f"{newest}: is damaged ({str(error).rpartition(': ')[2]}); {older}") from error

    def finish(self, stage: Stage, tensors: Mapping[str, Tensor]) -> None:
        """Write a stage's weights; its training states are no longer needed."""
        save_state(self.weights_file(stage), tensors, {"stage": stage.name, "recipe_sha256": self.recipe.digest()})
        for state in self.states(stage):
            state.unlink()

    def load_swapper(self) -> Swapper:
        """The trained method in eval mode on the run's device. Raises UserError if no stage is finished."""
        finished = [stage for stage in self.recipe.stages if self.finished(stage)]
        if self.recipe.stages and not finished:
            raise UserError(f"{self.path}: no stage is finished yet; go on with `fsf run RECIPE --resume`")
        swapper = build_swapper(self.recipe)
        swapper.load()
        for stage in finished:
            load_weights(swapper, self.weights_file(stage))
        if not any("refiner" in stage.train for stage in finished):
            swapper.drop_untrained_refiner()
        return swapper.eval().requires_grad_(False).to(self.device)

    def log(self, **entry: Any) -> None:
        """Add a line to log.jsonl."""
        with (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """The lines of log.jsonl; a last line that was cut short is left out."""
        file = self.path / "log.jsonl"
        entries = []
        for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
            try:
                entries.append(json.loads(line))
            except ValueError:
                break
        return entries

    def trim_log(self, stage: Stage, step: int) -> None:
        """Drop what was logged after a step that training goes back to."""
        kept = [entry for entry in self.read_log() if entry["stage"] != stage.name or entry["step"] <= step]
        write_text(self.path / "log.jsonl", "".join(json.dumps(entry) + "\n" for entry in kept))


def load_weights(swapper: Swapper, file: Path, sha256: str | None = None, keep: Collection[str] = ()) -> set[str]:
    """Put the weights of a file into the parts that they name, except those in `keep`; return the names of all.

    Raises
    ------
    UserError
        They do not fit, or the file has another hash.
    """
    state = load_state(file, sha256)
    parts = dict(swapper.trained_parts())
    named = {name.partition(".")[0] for name in state}
    if not named <= parts.keys():
        raise UserError(f"{file}: holds weights for {', '.join(sorted(named - parts.keys()))}, which the recipe lacks")
    for name in sorted(named - set(keep)):
        fill(parts[name], below(name, state), f"{file}: does not fit the recipe's {name}")
    return named


def first_difference(one: Any, other: Any, place: str = "") -> str:
    """Where two nested values first differ, such as `stages.0.steps`."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in [*one, *(key for key in other if key not in one)]:
            if key not in one or key not in other or one[key] != other[key]:
                return first_difference(one.get(key), other.get(key), f"{place}.{key}".lstrip("."))
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            if a != b:
                return first_difference(a, b, f"{place}.{index}".lstrip("."))
    return place or "the recipe"
