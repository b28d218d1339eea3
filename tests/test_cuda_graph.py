"""Steps that are recorded and replayed. CUDA graphs need a GPU; elsewhere a recorder of torch's operations stands in,
which replays them as a CUDA graph does: on the same memory, and without Python."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fsf_faceshifter import aad
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fsframework.data.collate import SwapPixels
from fsframework.data.train_pairs import Pair, TrainingPairs
from fsframework.models.run import Run
from fsframework.ops import instance_norm, winograd
from fsframework.recipe.build import build_swapper
from fsframework.recipe.schema import Recipe
from fsframework.training import step as training
from fsframework.training.cuda_graph import WARM_UPS, Recorded
from fsframework.training.distributed import World
from fsframework.training.step import TrainingStep
from fsframework.training.trainer import StageTrainer, train
from fsframework.utils.weights import load_state

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
STEPS, LATE = 12, 7  # one loss sets in late, after the first recording


class Tape(TorchDispatchMode):
    """Every operation with its arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, before in self.calls:
            for old, new in zip(tensors(before), tensors(func(*args, **kwargs)), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [found for each in value for found in tensors(each)] if isinstance(value, tuple | list) else []


class Taped:
    """In the place of `Recorded`."""

    made: list["Taped"] = []  # noqa: RUF012

    def __init__(self, work: Callable[[], Tensor], device: torch.device) -> None:
        self.work, self.calls, self.replays, self.tape = work, 0, 0, Tape()
        self.made.append(self)

    def __call__(self) -> Tensor:
        self.calls += 1
        if self.calls <= WARM_UPS:
            return self.work()
        if self.calls == WARM_UPS + 1:
            state = torch.random.get_rng_state()
            with self.tape:
                self.result = self.work()
            torch.random.set_rng_state(state)
            return self.result
        self.replays += 1
        self.tape.replay()
        return self.result


@pytest.fixture
def recipe() -> Recipe:
    """The first stage of `smoke`, with everything that a step may have."""
    settings = {
        "pairs": "{same: 0.25, mirror: true}",
        "losses.0.feature_matching_weight": "2",
        "losses.2": f"{{use: identity, weight: 5, shift: 0.05, start: {LATE}}}",
        "schedule": "{kind: cosine, warmup: 2}",
        "steps": STEPS,
        "batch_size": 3,
        "accumulate": 2,
        "clip": 30,
        "log_every": 5,
        "checkpoint_every": 8,
        "cuda_graph": "true",
    }
    smoke = Recipe.load("smoke", [f"stages.0.{key}={value}" for key, value in settings.items()])
    return smoke.model_copy(update={"stages": smoke.stages[:1]})


def trained(recipe: Recipe, out: Path, device: str = "cpu") -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """The weights after training, and what the losses said."""
    run = Run.open(recipe, out, device=device)
    train(run)
    return load_state(run.weights_file(recipe.stages[0])), [entry["losses"] for entry in run.read_log()]


def assert_same(one: tuple[dict[str, Tensor], list[Any]], other: tuple[dict[str, Tensor], list[Any]]) -> None:
    assert one[1] == other[1] and len(one[1]) == 3
    assert one[0].keys() == other[0].keys()
    assert not [key for key in one[0] if not torch.equal(one[0][key], other[0][key])]


@pytest.mark.slow
def test_replayed_steps_train_as_plain_ones(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit: other batches, other random numbers, another learning rate in each step, and a loss that sets in."""
    for module in (winograd, instance_norm, aad):
        monkeypatch.setattr(module.KERNELS, "suit", lambda *channels: False)  # the recorder does not see them
    plain = trained(recipe, tmp_path / "plain")
    monkeypatch.setattr(TrainingStep, "_wants_recording", lambda self: True)
    monkeypatch.setattr(training, "Recorded", Taped)
    Taped.made.clear()
    assert_same(trained(recipe, tmp_path / "replayed"), plain)
    early, late = Taped.made
    assert (early.replays, late.replays) == (LATE - WARM_UPS - 1, STEPS - LATE - WARM_UPS - 1)


def test_replayed_steps_take_ground_truths_that_set_in(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some batches bring a ground truth beside the targets, others do not: one more recording serves both."""
    for module in (winograd, instance_norm, aad):
        monkeypatch.setattr(module.KERNELS, "suit", lambda *channels: False)
    batch = TrainingPairs.batch
    numbers = itertools.count()

    def some(self: TrainingPairs, pairs: list[Pair]) -> SwapPixels:
        number = next(numbers) % (2 * STEPS)  # of the batch; two make a step
        truth = 255 - pairs[0].target.image if number > 5 and number % 3 == 0 else None
        return batch(self, [pairs[0]._replace(target=replace(pairs[0].target, ground_truth=truth)), *pairs[1:]])

    monkeypatch.setattr(TrainingPairs, "batch", some)
    plain = trained(recipe, tmp_path / "plain")
    monkeypatch.setattr(TrainingStep, "_wants_recording", lambda self: True)
    monkeypatch.setattr(training, "Recorded", Taped)
    Taped.made.clear()
    assert_same(trained(recipe, tmp_path / "replayed"), plain)
    assert [taped.calls for taped in Taped.made] == [3, LATE - 3, STEPS - LATE]
    assert next(numbers) == 4 * STEPS


def test_losses_that_are_read_a_step_later_are_the_same(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = trained(recipe, tmp_path / "plain")
    began = StageTrainer.__init__

    def lagging(self: StageTrainer, *values: Any) -> None:
        began(self, *values)
        self.lag = 1

    monkeypatch.setattr(StageTrainer, "__init__", lagging)
    assert_same(trained(recipe, tmp_path / "lagging"), plain)


def test_processors_record_nothing(recipe: Recipe, tmp_path: Path) -> None:
    """A recipe for GPUs works as it is."""
    run = Run.open(recipe, tmp_path / "run", device="cpu")
    assert not StageTrainer(run, recipe.stages[0], build_swapper(recipe)).training_step.records


def test_several_processes_record_nothing(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str], check_message: Callable[..., None]
) -> None:
    step = TrainingStep.__new__(TrainingStep)
    step.stage, step.world = recipe.stages[0], World(size=2)
    step.run = Run(recipe, tmp_path, torch.device("cuda"))
    assert not step._wants_recording()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: aei-net: cuda_graph: ")
    check_message(line)


@GPU
def test_a_recorded_step_on_a_gpu(recipe: Recipe, tmp_path: Path) -> None:
    plain = trained(recipe.model_copy(update={"stages": [recipe.stages[0].model_copy(update={"cuda_graph": False})]}),
                    tmp_path / "plain", "cuda")  # fmt: skip
    assert_same(trained(recipe, tmp_path / "recorded", "cuda"), plain)


@GPU
@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (lambda: torch.rand(1).cuda(), "CPU"),
        (lambda: torch.zeros(1, device="cuda") + torch.zeros(1, device="cuda").item(), "captur"),
    ],
)
def test_what_cannot_be_recorded_runs_as_it_is(
    work: Callable[[], Tensor], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = Recorded(work, torch.device("cuda", 0))
    for _ in range(WARM_UPS + 3):
        assert recorded().isfinite().all()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: a step cannot be recorded: ") and reason in line
