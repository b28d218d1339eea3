"""The training loop on real networks, small ones: resume, signals, faults."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from fsframework.core.errors import UserError
from fsframework.data.train_pairs import TrainingPairs
from fsframework.media.image_io import write_image
from fsframework.media.tensor import to_tensor
from fsframework.models.run import Run
from fsframework.recipe.schema import Pairs, Recipe
from fsframework.training import optim
from fsframework.training.distributed import World
from fsframework.training.step import TrainingStep
from fsframework.training.trainer import StageTrainer, train
from fsframework.utils.weights import load_state

PEOPLE, PICTURES = 4, 3  # 12 faces, so 5 steps of 4 pairs end within the second epoch


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of aligned crops: noise of one colour a person."""
    folder = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    for person in range(PEOPLE):
        colour = rng.integers(40, 200, 3)
        (folder / f"p{person}").mkdir()
        for picture in range(PICTURES):
            image = (colour + rng.integers(-40, 40, (32, 32, 3))).astype(np.uint8)
            write_image(folder / f"p{person}" / f"{picture}.png", image, synthetic=False)
    return folder


def recipe_dict(faces: Path) -> dict:
    return {
        "name": "tiny",
        "size": 32,
        "data": {"use": "face-folder", "root": str(faces), "layout": "aligned", "test_share": 0.0,
                 "cache": str(faces.parent / "cache")},
        "networks": {
            "identity": {"use": "dlib-resnet"},
            "attributes": {"use": "aei-attributes", "width": 0.25},
            "generator": {"use": "aad-generator", "width": 0.125},
        },
        "stages": [
            {
                "name": "aei-net",
                "train": ["attributes", "generator"],
                "pairs": {"same": 0.25, "mirror": True},
                "losses": [
                    {"use": "hinge-gan", "width": 8, "layers": 2, "scales": 1, "start": 1},
                    {"use": "attribute", "weight": 10.0},
                    {"use": "identity", "weight": 5.0, "shift": 0.05},
                    {"use": "reconstruction", "weight": 10.0},
                ],
                "optimizer": {"lr": 1e-3},
                "schedule": {"kind": "cosine", "warmup": 2},
                "ema": 0.9,
                "steps": 5,
                "batch_size": 4,
                "checkpoint_every": 2,
                "log_every": 1,
            }
        ],
    }  # fmt: skip


def write_recipe(folder: Path, content: dict) -> Path:
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def run_whole(recipe: Path, out: Path) -> dict[str, torch.Tensor]:
    run = Run.open(Recipe.load(str(recipe)), out, device="cpu")
    train(run)
    return load_state(run.weights_file(run.recipe.stages[0]))


def test_losses_of_one_name_are_numbered_in_the_log(tmp_path: Path, faces: Path) -> None:
    content = recipe_dict(faces)
    content["stages"][0]["steps"] = 1
    content["stages"][0]["losses"][2:2] = [{"use": "identity", "weight": 5.0, "encoder": {"use": "lfw-recogniser"}}]
    run = Run.open(Recipe.load(str(write_recipe(tmp_path, content))), tmp_path / "run", device="cpu")
    train(run)
    losses = run.read_log()[-1]["losses"]
    assert list(losses) == ["attribute", "identity", "identity 2", "reconstruction"]
    assert losses["identity"] != losses["identity 2"]


def fsf_train(recipe: Path, out: Path, *flags: str) -> list[str]:
    """A command that only trains: `fsf run` without what follows."""
    program = (
        "import sys; from pathlib import Path\n"
        "from fsframework.recipe.schema import Recipe; from fsframework.models.run import Run\n"
        "from fsframework.training.trainer import train\n"
        "recipe, out, *flags = sys.argv[1:]\n"
        "train(Run.open(Recipe.load(recipe), Path(out), resume='--resume' in flags, device='cpu'))"
    )
    return [sys.executable, "-c", program, str(recipe), str(out), *flags]


def wait_for(path_exists: Callable[[], bool], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not path_exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    different = [key for key in one if not torch.equal(one[key], other[key])]
    assert not different


# An epoch has 3 steps: killed in its middle, at its end, and after it.
@pytest.mark.system
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than a small machine has cores
@pytest.mark.parametrize(("killed_at", "workers"), [(2, 0), (3, 0), pytest.param(4, 2, marks=pytest.mark.slow)])
def test_resume_after_kill_is_bit_exact(tmp_path: Path, faces: Path, killed_at: int, workers: int) -> None:
    content = recipe_dict(faces)
    content["stages"][0] |= {"checkpoint_every": 1, "workers": workers}
    recipe = write_recipe(tmp_path, content)
    whole = run_whole(recipe, tmp_path / "whole")
    out = tmp_path / "killed"
    state = out / "checkpoints" / f"aei-net.step-{killed_at:08d}.safetensors"
    process = subprocess.Popen(fsf_train(recipe, out), stderr=subprocess.PIPE, text=True)
    wait_for(state.exists, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (out / "checkpoints" / "aei-net.safetensors").exists()  # it was still training
    run = Run.open(Recipe.load(str(recipe)), out, resume=True, device="cpu")
    train(run)
    assert_equal(whole, load_state(run.weights_file(run.recipe.stages[0])))
    steps = [entry["step"] for entry in run.read_log()]
    assert steps == [1, 2, 3, 4, 5]


@pytest.mark.system
def test_sigterm_leaves_a_checkpoint_and_status_143(
    tmp_path: Path, faces: Path, check_message: Callable[..., None]
) -> None:
    content = recipe_dict(faces)
    content["stages"][0] |= {"steps": 100000, "checkpoint_every": 100000}
    recipe, out = write_recipe(tmp_path, content), tmp_path / "out"
    process = subprocess.Popen(fsf_train(recipe, out), stderr=subprocess.PIPE, text=True)
    wait_for(lambda: (out / "log.jsonl").exists() and len((out / "log.jsonl").read_text()) > 0, process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    run = Run.load(out, "cpu")
    found = run.load_training_state(run.recipe.stages[0])
    assert found is not None
    (line,) = [line for line in errors.splitlines() if "--resume" in line]
    check_message(line, {f"step {found[0]} ": "step N "})


def test_sigterm_in_the_last_step_is_not_lost(tmp_path: Path, faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = StageTrainer.step

    def killed_in_the_last(self, step, *values):  # type: ignore[no-untyped-def]
        if step + 1 == self.stage.steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, step, *values)

    monkeypatch.setattr(StageTrainer, "step", killed_in_the_last)
    run = Run.open(Recipe.load(str(write_recipe(tmp_path, recipe_dict(faces)))), tmp_path / "out", device="cpu")
    with pytest.raises(SystemExit) as left:
        train(run)
    assert left.value.code == 143
    assert run.finished(run.recipe.stages[0])


def test_losses_fall(tmp_path: Path, faces: Path) -> None:
    content = recipe_dict(faces)
    content["stages"][0] |= {"steps": 40, "losses": [{"use": "reconstruction"}], "pairs": {"same": 1.0}}
    run = Run.open(Recipe.load(str(write_recipe(tmp_path, content))), tmp_path / "out", device="cpu")
    train(run)
    curve = [entry["losses"]["reconstruction"] for entry in run.read_log()]
    assert np.mean(curve[-5:]) < 0.5 * np.mean(curve[:5])


def test_accumulated_batches_give_the_gradient_of_one_large_batch(tmp_path: Path, faces: Path) -> None:
    """With losses that are means over pairs and no batch statistics in the part that trains."""
    results = []
    for size, accumulate in ((4, 1), (2, 2)):
        content = recipe_dict(faces)
        content["stages"][0] |= {
            "train": ["generator"], "losses": [{"use": "identity"}], "steps": 1, "ema": None, "batch_size": size,
            "accumulate": accumulate, "schedule": {}, "optimizer": {"lr": 1e-3, "betas": [0.9, 0.999]},
        }  # fmt: skip
        folder = tmp_path / str(size)
        folder.mkdir()
        results.append(run_whole(write_recipe(folder, content), folder / "out"))
    # Adam's first step is lr times the sign of the gradient: equal signs mean equal weights. Gradients that are 0 but
    # for rounding, such as those of biases before a normalisation, have any sign.
    difference = torch.cat([(results[0][key] - results[1][key]).flatten() for key in results[0]])
    assert (difference.abs() < 1e-5).float().mean() > 0.99


def test_gradients_that_are_freed_at_once_train_the_same(
    tmp_path: Path, faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, left, step = [], list[int](), optim.Adam.step

    def watched(optimizer: optim.Adam) -> None:
        left.append(gradients(optimizer))
        step(optimizer)

    for frees in (False, True):
        content = recipe_dict(faces)
        content["stages"][0] |= {"batch_size": 2, "accumulate": 2, "optimizer_in_backward": frees}
        folder = tmp_path / str(frees)
        folder.mkdir()
        monkeypatch.setattr(optim, "LARGE", 1000)
        monkeypatch.setattr(optim.Adam, "step", watched)
        results.append(run_whole(write_recipe(folder, content), folder / "out"))
    assert_equal(*results)
    assert len(left) > 50 and sorted(left)[len(left) // 2] < max(left) / 5  # most steps saw a small part of all


def gradients(optimizer: torch.optim.Optimizer) -> int:
    """How many numbers of gradients are in memory."""
    parameters = (each for group in optimizer.param_groups for each in group["params"])
    return sum(each.grad.numel() for each in parameters if each.grad is not None)


def test_several_processes_keep_their_gradients(
    tmp_path: Path, faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step = TrainingStep.__new__(TrainingStep)
    content = recipe_dict(faces)
    content["stages"][0]["optimizer_in_backward"] = True
    step.stage = Recipe.load(str(write_recipe(tmp_path, content))).stages[0]
    for world, wanted, said in ((World(), True, 0), (World(size=2), False, 1), (World(size=2, rank=1), False, 0)):
        step.world = world
        assert step._wants("optimizer_in_backward", "why") == wanted
        assert capsys.readouterr().err == said * "note: aei-net: optimizer_in_backward: why\n"


def test_frozen_parts_do_not_change(tmp_path: Path, faces: Path) -> None:
    content = recipe_dict(faces)
    content["networks"]["refiner"] = {"use": "hear-net", "width": 0.125}
    content["stages"][0]["steps"] = 2
    content["stages"].append(
        {"name": "hear-net", "train": ["refiner"], "losses": [{"use": "change"}, {"use": "reconstruction"}],
         "pairs": {"same": 0.5}, "optimizer": {"lr": 1e-3}, "steps": 2, "batch_size": 4}
    )  # fmt: skip
    run = Run.open(Recipe.load(str(write_recipe(tmp_path, content))), tmp_path / "out", device="cpu")
    train(run)
    first, second = (load_state(run.weights_file(stage)) for stage in run.recipe.stages)
    assert {key.split(".")[0] for key in first} == {"attributes", "generator"}
    assert {key.split(".")[0] for key in second} == {"refiner"}
    loaded = run.load_swapper().state_dict()
    assert_equal({key: loaded[key] for key in first | second}, first | second)


def test_nan_stops_names_loss_and_batch_and_keeps_the_checkpoint(
    tmp_path: Path, faces: Path, monkeypatch: pytest.MonkeyPatch, check_message: Callable[..., None]
) -> None:
    from fsf_losses.reconstruction import Reconstruction

    original, calls = Reconstruction.forward, []

    def poisoned(self, batch, output, swapper):  # type: ignore[no-untyped-def]
        calls.append(1)
        return original(self, batch, output, swapper) * (float("nan") if len(calls) == 4 else 1)

    monkeypatch.setattr(Reconstruction, "forward", poisoned)
    run = Run.open(Recipe.load(str(write_recipe(tmp_path, recipe_dict(faces)))), tmp_path / "out", device="cpu")
    with pytest.raises(UserError, match=r"^aei-net: step 4: .*reconstruction.*p\d/\d\.png -> p\d/\d\.png") as caught:
        train(run)
    check_message(re.sub(r"p\d/\d\.png", "PICTURE", str(caught.value)))
    found = run.load_training_state(run.recipe.stages[0])
    assert found is not None
    step, state = found
    assert step == 2
    assert all(torch.isfinite(value).all() for value in state.values())


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files, which POSIX systems can")
@pytest.mark.system
def test_full_disk_keeps_the_checkpoint_and_no_leftovers(
    tmp_path: Path, faces: Path, check_message: Callable[..., None]
) -> None:
    content = recipe_dict(faces)
    content["stages"][0] |= {"checkpoint_every": 1}
    recipe, out = write_recipe(tmp_path, content), tmp_path / "out"
    command = fsf_train(recipe, out)
    # Writing beyond the limit fails like a full disk; the limit falls below a checkpoint's size after the first one.
    command[2] = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from fsframework.models.run import Run\n"
        "save = Run.save_training_state\n"
        "def limited(self, stage, step, tensors):\n"
        "    if step == 2: resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))\n"
        "    return save(self, stage, step, tensors)\n"
        "Run.save_training_state = limited\n"
        "from fsframework.core.errors import UserError\n"
        + command[2].replace("train(Run", "try:\n    train(Run")
        + "\nexcept UserError as error: sys.exit(str(error))"
    )
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    line = result.stderr.splitlines()[-1]
    assert line.startswith(f"{out / 'checkpoints' / 'aei-net.step-00000002.safetensors'}: ")
    check_message(re.sub(r"(cannot be written): .*", r"\1: REASON", line))
    assert "Traceback" not in result.stderr
    assert [file.name for file in (out / "checkpoints").glob("*step*")] == ["aei-net.step-00000001.safetensors"]
    assert Run.load(out, "cpu").load_training_state(Recipe.load(str(recipe)).stages[0]) is not None


class TestRunDirectory:
    @pytest.fixture
    def recipe(self, tmp_path: Path, faces: Path) -> Recipe:
        content = recipe_dict(faces)
        content["stages"][0]["steps"] = 1
        return Recipe.load(str(write_recipe(tmp_path, content)))

    def test_an_occupied_directory_needs_a_flag(
        self, tmp_path: Path, recipe: Recipe, expect_error: Callable[..., Any]
    ) -> None:
        Run.open(recipe, tmp_path / "out", device="cpu")
        with expect_error("out"):
            Run.open(recipe, tmp_path / "out", device="cpu")
        Run.open(recipe, tmp_path / "out", resume=True, device="cpu")
        (tmp_path / "out" / "metrics.json").write_text("{}")
        Run.open(recipe, tmp_path / "out", overwrite=True, device="cpu")
        assert not (tmp_path / "out" / "metrics.json").exists()

    def test_a_foreign_directory_is_never_replaced(
        self, tmp_path: Path, recipe: Recipe, expect_error: Callable[..., Any]
    ) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.tex").write_text("...")
        with expect_error("out"):
            Run.open(recipe, tmp_path / "out", overwrite=True, device="cpu")
        assert (tmp_path / "out" / "thesis.tex").exists()

    def test_resume_of_another_recipe_names_the_difference(
        self, tmp_path: Path, faces: Path, recipe: Recipe, expect_error: Callable[..., Any]
    ) -> None:
        Run.open(recipe, tmp_path / "out", device="cpu")
        content = recipe_dict(faces)
        content["stages"][0] |= {"steps": 1, "batch_size": 3}
        other = Recipe.load(str(write_recipe(tmp_path, content)))
        with expect_error("out"):
            Run.open(other, tmp_path / "out", resume=True, device="cpu")

    def test_resume_of_nothing(self, tmp_path: Path, recipe: Recipe, expect_error: Callable[..., Any]) -> None:
        with expect_error("out"):
            Run.open(recipe, tmp_path / "out", resume=True, device="cpu")

    def test_a_checkpoint_cut_short_is_named(
        self, tmp_path: Path, recipe: Recipe, check_message: Callable[..., None]
    ) -> None:
        run = Run.open(recipe, tmp_path / "out", device="cpu")
        stage = recipe.stages[0]
        run.save_training_state(stage, 1, {"a": torch.zeros(10)})
        file = run.save_training_state(stage, 2, {"a": torch.zeros(1000)})
        file.write_bytes(file.read_bytes()[:500])
        with pytest.raises(UserError) as caught:
            run.load_training_state(stage)
        assert str(caught.value).startswith(f"{file}: ")
        check_message(re.sub(r"\([^;]*;", "(REASON;", str(caught.value)))  # safetensors' own words

    @pytest.mark.slow
    def test_killed_while_saving_the_newest_state_is_whole(self, tmp_path: Path, recipe: Recipe) -> None:
        run, stage = Run.open(recipe, tmp_path / "out", device="cpu"), recipe.stages[0]
        program = (
            "import sys, torch; from pathlib import Path; from fsframework.models.run import Run\n"
            "run = Run.load(Path(sys.argv[1]), 'cpu'); step = int(sys.argv[2])\n"
            "while True:\n"
            "    step += 1\n"
            "    run.save_training_state(run.recipe.stages[0], step, {'a': torch.full((200_000,), step)})"
        )
        delays, done = np.random.default_rng(0).uniform(0, 0.05, 4), 0
        for delay in delays:
            process = subprocess.Popen([sys.executable, "-c", program, str(run.path), str(done)])
            before = run.states(stage)
            deadline = time.monotonic() + 120
            while run.states(stage) == before:
                assert process.poll() is None and time.monotonic() < deadline
            time.sleep(delay)
            process.kill()
            process.wait()
            found = run.load_training_state(stage)
            assert found is not None and found[0] > done
            done = found[0]
            assert (found[1]["a"] == done).all()
        (run.path / "checkpoints" / ".aei-net.step-00000099.safetensors.abc.safetensors").write_bytes(b"half")
        Run.open(recipe, run.path, resume=True, device="cpu")
        assert not list((run.path / "checkpoints").glob(".*"))

    def test_old_states_are_deleted(self, tmp_path: Path, recipe: Recipe) -> None:
        run = Run.open(recipe, tmp_path / "out", device="cpu")
        for step in (1, 2, 3, 10):
            run.save_training_state(recipe.stages[0], step, {"a": torch.zeros(1)})
        assert [int(file.stem[-8:]) for file in run.states(recipe.stages[0])] == [3, 10]

    def test_manifest_says_where_and_with_what(self, tmp_path: Path, recipe: Recipe) -> None:
        run = Run.open(recipe, tmp_path / "out", device="cpu")
        manifest = json.loads((run.path / "manifest.json").read_text())
        assert manifest["versions"]["torch"] == torch.__version__.partition("+")[0]
        assert manifest["recipe_sha256"] == recipe.digest()
        assert "fsf_faceshifter" in manifest["plugins"]

    def test_a_directory_without_a_run(self, tmp_path: Path, expect_error: Callable[..., Any]) -> None:
        with expect_error(tmp_path.name):
            Run.load(tmp_path)

    def test_an_unknown_device(self, tmp_path: Path, recipe: Recipe, check_message: Callable[..., None]) -> None:
        with pytest.raises(UserError) as caught:
            Run.open(recipe, tmp_path / "out", device="warp")
        message, _, _ = str(caught.value).partition(": Expected ")  # torch's own words follow
        assert message.startswith("--device warp: ")
        check_message(message)


def test_compiling_takes_every_network_that_can_be(
    tmp_path: Path, faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen ones, too. What the compiler makes of them is seen on GPUs; here it is only asked."""
    asked: list[str] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: asked.append(module.name))
    content = recipe_dict(faces)
    content["stages"][0] |= {"compile": True, "steps": 1}
    run_whole(write_recipe(tmp_path, content), tmp_path / "run")
    assert asked == ["dlib-resnet", "aei-attributes", "aad-generator"]


def test_batches_travel_as_bytes_and_every_image_once(faces: Path) -> None:
    recipe = Recipe.model_validate(recipe_dict(faces))
    dataset = recipe.data.build(recipe.size, recipe.detector, "train")
    dataset.load()
    pairs = TrainingPairs(dataset, Pairs(same=0.5), [0, 0])
    drawn = [pairs[number] for number in range(4)]
    batch = pairs.batch(drawn)
    images = [batch.source.image, batch.target.image, batch.valid_mask]
    assert sum(image.nbytes for image in images) == 4 * (3 + 3 + 1) * 32 * 32 and batch.ground_truth is None
    floats = batch.to_float()
    assert torch.equal(floats.target.image, to_tensor(np.stack([pair.target.image for pair in drawn])))
    assert floats.ground_truth is floats.target.image
    assert torch.equal(floats.valid_mask.mean(dim=(1, 2, 3)), batch.same.float()) and 0 < batch.same.sum() < 4


def test_a_share_of_targets_is_grey_and_of_the_same_lightness(faces: Path) -> None:
    recipe = Recipe.model_validate(recipe_dict(faces))
    dataset = recipe.data.build(recipe.size, recipe.detector, "train")
    dataset.load()
    plain, half = (TrainingPairs(dataset, Pairs(same=0.25, grey=share), [0, 0]) for share in (0.0, 0.5))
    greys = 0
    for number in range(40):
        before, after = plain[number], half[number]
        image = after.target.image.astype(float)
        if np.ptp(image, axis=2).max() > 0:
            np.testing.assert_array_equal(after.target.image, before.target.image)
            continue
        greys += 1
        luma = before.target.image @ [0.299, 0.587, 0.114]
        np.testing.assert_allclose(image[..., 0], luma, atol=0.51)
        if after.source_index == after.target_index:
            np.testing.assert_array_equal(after.source.image, after.target.image)
    assert 10 <= greys <= 30
