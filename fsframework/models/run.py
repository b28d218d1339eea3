"""Manage run directories: the resolved recipe, the environment, checkpoints, log, and results.

recipe.yaml      with every default; a run continues only with the same recipe
manifest.json    versions, plugins, device, seed, commit
log.jsonl        a line every few steps
checkpoints/     NAME.safetensors: weights of a finished stage; NAME.step-N.safetensors: training state to resume from
                 step N, bit for bit; NAME.prepared.safetensors: values computed once at the start of the stage
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

KEPT_STATES = 2  # number of states of a stage that stay on disk, the newest ones


class Run:
    """One training run and its directory. Create it with `Run.open` or `Run.load`."""

    def __init__(self, recipe: Recipe, path: Path, device: torch.device) -> None:
        self.recipe = recipe
        self.path = path
        self.device = device

    @classmethod
    def open(
        cls, recipe: Recipe, path: Path, resume: bool = False, overwrite: bool = False, device: str | None = None
    ) -> "Run":
        """Return a run for training, in a new directory or, with `resume`, in an existing one.

        Raises
        ------
        UserError
            The directory contains other files, the run of another recipe, or a run and neither flag is set.
        """
        path = Path(path)
        run = cls(recipe, path, pick_device(device))
        if run.check_place(resume, overwrite) and not resume:
            shutil.rmtree(path)
        try:
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be created: {error.strerror or error}; choose another with --out"
            ) from error
        for leftover in (path / "checkpoints").glob(".*"):  # temporary files of a killed process
            leftover.unlink()
        if not resume:
            write_text(path / "recipe.yaml", recipe.dump_yaml())
        run._write_manifest()
        return run

    @classmethod
    def load(cls, path: Path, device: str | None = None, sets: Sequence[str] = ()) -> "Run":
        """Return an existing run for reading, with its recipe changed by `sets`.

        Raises UserError if there is none.
        """
        path = Path(path)
        if not (path / "recipe.yaml").is_file():
            raise UserError(f"{path}: is not a run directory (it has no recipe.yaml); use the --out of an `fsf run`")
        return cls(Recipe.load(str(path / "recipe.yaml"), sets), path, pick_device(device))

    def check_place(self, resume: bool, overwrite: bool) -> bool:
        """Return whether the directory contains a run.

        Raises UserError where `open` would; nothing is changed.
        """
        path = self.path
        occupied = path.exists() and (not path.is_dir() or any(path.iterdir()))
        if occupied and not (path / "recipe.yaml").is_file():
            raise UserError(f"{path}: exists and is not a run directory; choose another with --out")
        if resume:
            if not occupied:
                raise UserError(f"{path}: contains no run to resume; leave --resume out to start one")
            self._check_same_recipe()
        elif occupied and not overwrite:
            raise UserError(f"{path}: already contains a run; --resume continues it, --overwrite replaces it")
        return occupied

    def _check_same_recipe(self) -> None:
        """Raise UserError unless the stored recipe equals the run's."""
        stored = Recipe.load(str(self.path / "recipe.yaml"))
        if stored.digest() != self.recipe.digest():
            key = first_difference(stored.dump(), self.recipe.dump())
            raise UserError(
                f"{self.path}: --resume needs the same recipe, but {key} differs; "
                "undo that, or start another run with --out"
            )

    def _write_manifest(self) -> None:
        """Write manifest.json; keep the first date, and add a date for each resumption."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        previous = self.manifest() if (self.path / "manifest.json").is_file() else {}
        manifest = {
            "recipe": self.recipe.name,
            "recipe_sha256": self.recipe.digest(),
            "seed": self.recipe.seed,
            "date": previous.get("date", now),
            "resumed": [*previous.get("resumed", []), now] if previous else [],
            **environment(self.device),
        }
        write_text(self.path / "manifest.json", json.dumps(manifest, indent=2) + "\n")

    def manifest(self) -> dict[str, Any]:
        """Return the manifest: versions, hardware, seed and dates.

        Raises UserError if it cannot be read.
        """
        try:
            return dict(json.loads((self.path / "manifest.json").read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path / 'manifest.json'}: cannot be read: {error}") from error

    def weights_file(self, stage: Stage) -> Path:
        """Return the path of a finished stage's weights."""
        return self.path / "checkpoints" / f"{stage.name}.safetensors"

    def finished(self, stage: Stage) -> bool:
        """Return whether a stage has been trained to its end."""
        return self.weights_file(stage).is_file()

    def prepared_file(self, stage: Stage) -> Path:
        """Return the path of the values that a stage computes once at its start."""
        return self.path / "checkpoints" / f"{stage.name}.prepared.safetensors"

    def states(self, stage: Stage) -> list[Path]:
        """Return the paths of a stage's training states, oldest first."""
        files = (self.path / "checkpoints").glob(f"{stage.name}.step-*.safetensors")
        return sorted(files, key=lambda file: int(file.stem.rpartition("-")[2]))

    def save_training_state(self, stage: Stage, step: int, tensors: Mapping[str, Tensor]) -> Path:
        """Write the training state after `step` steps, and delete older states; return its path."""
        file = self.path / "checkpoints" / f"{stage.name}.step-{step:08d}.safetensors"
        save_state(file, tensors, {"step": str(step), "recipe_sha256": self.recipe.digest()})
        for old in self.states(stage)[:-KEPT_STATES]:
            old.unlink()
        return file

    def load_training_state(self, stage: Stage) -> tuple[int, dict[str, Tensor]] | None:
        """Return the newest state (completed steps, tensors), or None.

        Raises UserError if it is damaged.
        """
        states = self.states(stage)
        if not states:
            return None
        newest = states[-1]
        try:
            return int(load_metadata(newest)["step"]), load_state(newest)
        except (UserError, KeyError) as error:
            older = (
                f"delete it to resume from {states[-2].name}" if len(states) > 1 else "delete it to restart the stage"
            )
            raise UserError(f"{newest}: is damaged ({str(error).rpartition(': ')[2]}); {older}") from error

    def finish(self, stage: Stage, tensors: Mapping[str, Tensor]) -> None:
        """Write a stage's weights, and delete its training states."""
        save_state(self.weights_file(stage), tensors, {"stage": stage.name, "recipe_sha256": self.recipe.digest()})
        for state in self.states(stage):
            state.unlink()

    def load_swapper(self, unfinished: bool = False) -> Swapper:
        """Return the trained method in eval mode on the run's device.

        With `unfinished`, the stage in training counts with the weights of its newest checkpoint.

        Raises UserError if no stage is finished, or with `unfinished` none has a checkpoint.
        """
        trained = [stage for stage in self.recipe.stages if self.finished(stage)]
        current = self.stage_in_training() if unfinished else None
        if self.recipe.stages and not trained and current is None:
            reason, more = "there is no checkpoint yet", ""
            if not unfinished:
                reason, more = "no stage is finished yet", ", or get what it has with `fsf export --unfinished`"
            raise UserError(f"{self.path}: {reason}; continue with `fsf run RECIPE --resume`{more}")
        swapper = build_swapper(self.recipe)
        swapper.load()
        for stage in trained:
            load_weights(swapper, self.weights_file(stage))
        if current is not None:
            self._load_newest(swapper, current)
            trained.append(current)
        if not any("refiner" in stage.train for stage in trained):
            swapper.drop_untrained_refiner()
        return swapper.eval().requires_grad_(False).to(self.device)

    def stage_in_training(self) -> Stage | None:
        """Return the first unfinished stage if it has a checkpoint, else None."""
        stage = next((stage for stage in self.recipe.stages if not self.finished(stage)), None)
        return stage if stage is not None and self.states(stage) else None

    def _load_newest(self, swapper: Swapper, stage: Stage) -> None:
        """Load the weights of a stage's newest checkpoint, with `ema` the averaged ones."""
        checkpoint = self.load_training_state(stage)
        assert checkpoint is not None, "call stage_in_training first"
        _, tensors = checkpoint
        weights = below("average" if stage.ema is not None else "model", tensors)
        parts = dict(swapper.trained_parts())
        for name in stage.train:
            fill(parts[name], below(name, weights), f"{self.states(stage)[-1]}: does not fit the recipe's {name}")

    def log(self, **entry: Any) -> None:
        """Append a line to log.jsonl."""
        with (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """Return the entries of log.jsonl; an incomplete last line is ignored."""
        file = self.path / "log.jsonl"
        entries = []
        for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
            try:
                entries.append(json.loads(line))
            except ValueError:
                break
        return entries

    def trim_log(self, stage: Stage, step: int) -> None:
        """Delete the entries of a stage after a step from which training resumes."""
        entries = [entry for entry in self.read_log() if entry["stage"] != stage.name or entry["step"] <= step]
        write_text(self.path / "log.jsonl", "".join(json.dumps(entry) + "\n" for entry in entries))


def load_weights(
    swapper: Swapper, file: Path, sha256: str | None = None, keep: Collection[str] = (), adapt: bool = False
) -> set[str]:
    """Load a file's weights into the parts of the same names, except those in `keep`; return all names in the file.

    With `adapt` they may be those of networks without some option (`Network.adapt_weights`), and those of a refiner
    that the swapper lacks are ignored.

    Raises
    ------
    UserError
        The weights do not fit, or the file has another hash.
    """
    state = load_state(file, sha256)
    parts = dict(swapper.trained_parts())
    named = {name.partition(".")[0] for name in state}
    unused = named - parts.keys()
    if unused - ({"refiner"} if adapt else set()):
        raise UserError(f"{file}: contains weights for {', '.join(sorted(unused))}, which the recipe lacks")
    for name in sorted(named - unused - set(keep)):
        weights = below(name, state)
        if adapt:
            weights = parts[name].adapt_weights(weights)
        fill(parts[name], weights, f"{file}: does not fit the recipe's {name}")
    return named


def first_difference(first: Any, second: Any, path: str = "") -> str:
    """Return the path at which two nested values first differ, such as `stages.0.steps`."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for key in [*first, *(key for key in second if key not in first)]:
            if key not in first or key not in second or first[key] != second[key]:
                return first_difference(first.get(key), second.get(key), f"{path}.{key}".lstrip("."))
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for index, (a, b) in enumerate(zip(first, second, strict=True)):
            if a != b:
                return first_difference(a, b, f"{path}.{index}".lstrip("."))
    return path or "the recipe"
