"""Common mistakes of plugin authors, and the one line that each is told: where it is, what must hold, what to do.

Every row is a whole plugin, `fsf_mine.py`. It is installed, and what its author sees is compared: the warning of every
command if the plugin cannot be used, else the first check of `pytest --fsf-plugin fsf_mine` that fails. Line numbers
are those of the file.
"""

import re
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch

from fsframework.core.registry import KINDS, registry
from fsframework.testing.contract import CHECKS, ContractError, checks, subject
from fsframework.testing.data_checks import ALONE

HEAD = """\
from typing import ClassVar
import numpy as np
import torch
from pydantic import Field
from torch import nn
from fsframework import hookimpl
from fsframework.core.components import *
from fsframework.core.types import *
@hookimpl
def register_HOOK(): return [Mine]
"""


FLOAT = r"-?\d+\.\d*(e[-+]?\d+)?"


class Mistake(NamedTuple):
    """A plugin with one mistake."""

    check: str  # the check that finds it; "install" where the plugin cannot be used at all
    hook: str
    source: str
    line: int  # of the file, which the message names
    reason: str = ""  # what Python or torch says, part of the message
    varies: str = "^$"  # a pattern of what differs between versions and machines


def written(mistake: Mistake) -> str:
    """The plugin's file."""
    return HEAD.replace("HOOK", mistake.hook) + textwrap.dedent(mistake.source).lstrip("\n")


LOSS = """
class Mine(Loss):
    "Mine."
    name = "mine"
"""
DETECTOR = LOSS.replace("Loss", "Detector")
GENERATOR = """
class Mine(Generator):
    "Mine."
    name = "mine"
    def __init__(self, options, size, id_dim, att_channels):
        super().__init__(options, size, id_dim, att_channels)
        self.paint = nn.Conv2d(att_channels[-1], 3, 1)
    def picture(self, z_id, z_att):
        h = nn.functional.interpolate(self.paint(z_att[-1]), size=(self.size, self.size)).tanh()
        return h * (0.9 + 0.1 * z_id.mean(dim=1)[:, None, None, None])
"""
IDENTITY = """
class Mine(IdentityEncoder):
    "Mine."
    name = "mine"
    dim = 3
    match_threshold = 0.5
    def __init__(self, options):
        super().__init__(options)
        self.layer = nn.Linear(3, 3)
    def colour(self, faces):
        return self.layer(faces.image.mean(dim=(2, 3)) + torch.tensor([1.0, 2.0, 3.0]).to(faces.image))
"""
DATASET = """
class Mine(Dataset):
    "Mine."
    name = "mine"
    count = 4
    def __len__(self): return self.count if self.split == "all" else self.count // 2
    def __getitem__(self, index):
        number = index + (self.count // 2 if self.split == "test" else 0)
        image = np.full((self.size, self.size, 3), 10 * number, np.uint8)
        points = np.array([[20.0, 30], [44, 30], [32, 40], [22, 50], [42, 50]])
        return Sample(image, f"p{number}/0", f"p{number}", points)
"""
BENCHMARK = """
class Mine(Benchmark):
    "Mine."
    name = "mine"
    metrics: ClassVar = {"mine": MetricInfo("", "lower", "Mine.")}
"""
MEASURES = "    def measure_batch(self, batch, swap, faces): return {}"

MISTAKES = {
    # Plugins that cannot be used.
    "a module that is not installed": Mistake(
        "install", "losses", "import a_missing_module", 11, reason="No module named 'a_missing_module'"
    ),
    "a mistake in the syntax": Mistake("install", "losses", "class Mine(Loss)\n", 11, reason="expected ':'"),
    "an error on import": Mistake("install", "losses", "Mine = 1 / 0", 11, reason="division by zero"),
    "a hook that is misspelt": Mistake("install", "loses", LOSS, 9),
    "a hook that is not marked": Mistake("install", "losses", LOSS + "def register_detectors(): return []", 14),
    "no hook": Mistake("install", "losses", LOSS + "del register_losses", 1),
    "a hook that returns a class instead of a list": Mistake(
        "install", "losses", LOSS + "@hookimpl\ndef register_refiners(): return Mine", 14
    ),
    "a hook that returns nothing": Mistake("install", "losses", LOSS + "@hookimpl\ndef register_losses(): [Mine]", 14),
    "a hook that returns an instance": Mistake("install", "losses", LOSS + "Mine = Mine(Mine.Options())", 9),
    "a wrong base class": Mistake("install", "losses", 'class Mine(nn.Module):\n    name = "mine"', 11),
    "no name": Mistake("install", "losses", 'class Mine(Loss):\n    "Mine."', 11),
    "two components of one name": Mistake(
        "install",
        "losses",
        LOSS + 'class Other(Loss):\n    name = "mine"\n@hookimpl\ndef register_losses(): return [Mine, Other]',
        11,
    ),
    "a component that another plugin has": Mistake("install", "losses", LOSS.replace('"mine"', '"dssim"'), 11),
    # Names of earlier versions.
    "a module of an earlier layout": Mistake(
        "install",
        "losses",
        "from fsframework.components import Loss",
        11,
        reason="No module named 'fsframework.components'",
    ),
    "a class of an earlier name": Mistake("install", "losses", "from fsframework import Batch", 11, varies=r"\(/\S+\)"),
    "a method of an earlier name": Mistake("install", "datasets", DATASET + "    def seen(self): return True", 11),
    # The class.
    "a name in the wrong form": Mistake("name", "losses", LOSS.replace('"mine"', '"MyLoss"'), 11),
    "no docstring": Mistake("docstring", "losses", LOSS.replace('"Mine."', "pass"), 11),
    "an option without description": Mistake(
        "options", "losses", LOSS + "    class Options(Loss.Options):\n        gain: float = 1.0", 11
    ),
    "options of a loss without weight": Mistake(
        "install", "losses", LOSS + "    class Options(ComponentOptions): pass", 11
    ),
    "options of another kind": Mistake("install", "generators", GENERATOR + "    class Options: pass", 11),
    "a file that is read in the constructor": Mistake(
        "allocates",
        "losses",
        LOSS
        + "    def __init__(self, options):\n        super().__init__(options)\n        open('/etc/hosts').close()",
        11,
    ),
    "a tensor that ignores the current device": Mistake(
        "allocates",
        "losses",
        LOSS + "    def __init__(self, options):\n        super().__init__(options)\n"
        "        self.register_buffer('table', torch.from_numpy(np.zeros(3)))",
        11,
    ),
    "a constructor that forgets its options": Mistake(
        "allocates", "losses", LOSS + "    def __init__(self, options):\n        nn.Module.__init__(self)", 11
    ),
    "a constructor with other arguments": Mistake(
        "allocates",
        "generators",
        GENERATOR.replace("options, size, id_dim, att_channels):", "options, size):"),
        11,
        reason="Mine.__init__() takes 3 positional arguments but 5 were given",
    ),
    # Detectors.
    "a detector that finds nothing": Mistake(
        "faces", "detectors", DETECTOR + "    def forward(self, frames): return [[] for _ in frames]", 11
    ),
    "a detector that sees faces everywhere": Mistake(
        "frames",
        "detectors",
        DETECTOR + "    def forward(self, frames):\n"
        "        p = np.array([[205.0, 102], [247, 104], [225, 129], [202, 139], [245, 142]])\n"
        "        return [[Face(np.zeros(4), p, 0.5)] for _ in frames]",
        11,
    ),
    # Identity encoders.
    "embeddings of any length": Mistake(
        "embedding",
        "identity_encoders",
        IDENTITY + "    def forward(self, faces): return self.colour(faces)",
        11,
        varies=FLOAT,
    ),
    "an encoder without a threshold": Mistake(
        "threshold",
        "identity_encoders",
        IDENTITY.replace("    match_threshold = 0.5\n", "")
        + "    def forward(self, faces): return nn.functional.normalize(self.colour(faces), dim=1)",
        11,
    ),
    "a threshold that is no cosine": Mistake(
        "threshold",
        "identity_encoders",
        IDENTITY.replace("0.5", "1.0")
        + "    def forward(self, faces): return nn.functional.normalize(self.colour(faces), dim=1)",
        11,
    ),
    "a threshold without a metric": Mistake(
        "threshold",
        "identity_encoders",
        IDENTITY + "    metric = False\n    def forward(self, faces): return self.colour(faces)",
        11,
    ),
    "an encoder left in train mode": Mistake(
        "frozen",
        "identity_encoders",
        IDENTITY + "    def train(self, mode=True): return nn.Module.train(self, mode)\n"
        "    def forward(self, faces): return nn.functional.normalize(self.colour(faces), dim=1)",
        11,
    ),
    "an encoder that blocks gradients": Mistake(
        "gradient",
        "identity_encoders",
        IDENTITY + "    @torch.no_grad()\n"
        "    def forward(self, faces): return nn.functional.normalize(self.colour(faces), dim=1)",
        11,
    ),
    # Attribute encoders.
    "maps with other channels than declared": Mistake(
        "maps",
        "attribute_encoders",
        'class Mine(AttributeEncoder):\n    "Mine."\n    name = "mine"\n    channels = [4]\n'
        "    def forward(self, faces): return [faces.image]",
        11,
    ),
    # Generators.
    "a picture of the wrong shape": Mistake(
        "picture",
        "generators",
        GENERATOR + "    def forward(self, z_id, z_att): return self.picture(z_id, z_att)[:, :1]",
        11,
    ),
    "a picture without bounds": Mistake(
        "picture",
        "generators",
        GENERATOR + "    def forward(self, z_id, z_att): return 3 + self.picture(z_id, z_att)",
        11,
        varies=FLOAT,
    ),
    "a forward that raises": Mistake(
        "picture",
        "generators",
        GENERATOR + "    def forward(self, z_id, z_att):\n        return self.picture(z_id.reshape(7, 7), z_att)",
        21,
        reason="shape '[7, 7]' is invalid for input of size 384",
    ),
    "no forward": Mistake("picture", "generators", GENERATOR, 11),
    "attention maps of the wrong shape": Mistake(
        "attention",
        "generators",
        GENERATOR + "    def forward(self, z_id, z_att): return self.picture(z_id, z_att)\n"
        "    def maps(self, z_id, z_att): return z_att",
        11,
    ),
    "weights that are never used": Mistake(
        "gradient",
        "generators",
        GENERATOR.replace("        self.paint", "        self.idle = nn.Linear(2, 2)\n        self.paint")
        + "    def forward(self, z_id, z_att): return self.picture(z_id, z_att)",
        11,
    ),
    "dropout that never stops": Mistake(
        "seed",
        "generators",
        GENERATOR + "        \n    calls = 0\n    def forward(self, z_id, z_att):\n        Mine.calls += 1\n"
        "        return self.picture(z_id, z_att) * (0.5 if Mine.calls % 2 else 0.9)",
        11,
    ),
    "noise in eval mode": Mistake(
        "seed",
        "generators",
        GENERATOR + "    def forward(self, z_id, z_att):\n"
        "        return self.picture(z_id, z_att) * (0.9 + 0.1 * torch.rand(()))",
        11,
    ),
    "an input that is changed in place": Mistake(
        "untouched",
        "generators",
        GENERATOR + "    def forward(self, z_id, z_att):\n"
        "        h = self.picture(z_id, z_att)\n        z_id.detach().mul_(0.5)\n        return h",
        11,
    ),
    "a size that is written out": Mistake(
        "meta",
        "generators",
        GENERATOR.replace("size=(self.size, self.size)", "size=(64, 64)")
        + "    def forward(self, z_id, z_att): return self.picture(z_id, z_att)",
        11,
    ),
    "weights outside the state": Mistake(
        "state",
        "generators",
        GENERATOR + "    def load(self): self.tone = torch.rand(())\n"
        "    def forward(self, z_id, z_att): return self.picture(z_id, z_att) * getattr(self, 'tone', 1)",
        11,
    ),
    "sums that overflow in mixed precision": Mistake(
        "precision",
        "generators",
        GENERATOR + "    def forward(self, z_id, z_att):\n        h = self.paint(z_att[-1])\n"
        "        h = ((h + 4096) - 4096)\n"
        "        return nn.functional.interpolate(h, size=(self.size, self.size)).tanh() * z_id.mean() * 100",
        11,
        varies=FLOAT,
    ),
    "rows that see each other": Mistake(
        "batch-of-one",
        "generators",
        GENERATOR + "    def forward(self, z_id, z_att):\n"
        "        h = self.picture(z_id, z_att)\n        return h - 0.5 * h.mean(dim=0, keepdim=True)",
        11,
        varies=FLOAT,
    ),
    "rows in another order": Mistake(
        "order",
        "generators",
        GENERATOR + "    def forward(self, z_id, z_att):\n        h = self.picture(z_id, z_att)\n"
        "        return torch.cat([h[:1] * 0.5, h[1:]]) if len(h) > 1 else h",
        11,
        varies=FLOAT,
    ),
    "values asked for on the meta device": Mistake(
        "meta",
        "generators",
        GENERATOR + "    def forward(self, z_id, z_att):\n"
        "        h = self.picture(z_id, z_att)\n        return h if h.max().item() < 2 else h / 2",
        22,
        reason="Tensor.item() cannot be called on meta tensors",
    ),
    "traceable, and it is not": Mistake(
        "traced",
        "generators",
        GENERATOR + "    traceable = True\n    def forward(self, z_id, z_att):\n"
        "        h = self.picture(z_id, z_att)\n        return h / 2 if not h.is_meta and h.max().item() > 2 else h",
        11,
        varies="(?<=it raises ).*",
    ),
    # Refiners.
    "a refiner that returns a swap result": Mistake(
        "picture",
        "refiners",
        LOSS.replace("Loss", "Refiner") + "    def forward(self, coarse, batch, swapper): return coarse.z_id",
        11,
    ),
    # Losses.
    "a loss for each pair": Mistake(
        "number",
        "losses",
        LOSS + "    def forward(self, batch, output, swapper): return output.image.mean(dim=(1, 2, 3))",
        11,
    ),
    "a loss with its weight in it": Mistake(
        "number",
        "losses",
        LOSS + "    def forward(self, batch, output, swapper): return self.options.weight * output.image.mean()",
        11,
    ),
    "a loss without gradient": Mistake(
        "gradient",
        "losses",
        LOSS + "    def forward(self, batch, output, swapper): return output.image.detach().mean()",
        11,
    ),
    "a discriminator that nobody trains": Mistake(
        "critic",
        "losses",
        LOSS
        + "    def __init__(self, options):\n        super().__init__(options)\n        self.net = nn.Conv2d(3, 1, 3)\n"
        "    def forward(self, batch, output, swapper): return self.net(output.image).mean()",
        11,
    ),
    "a loss that depends on the order": Mistake(
        "batch",
        "losses",
        LOSS + "    def forward(self, batch, output, swapper): return output.image[0].mean()",
        11,
        varies=FLOAT,
    ),
    # Data sets.
    "pictures in another size": Mistake(
        "faces", "datasets", DATASET.replace("self.size, self.size, 3", "32, 32, 3"), 11
    ),
    "landmarks in the wrong order": Mistake("faces", "datasets", DATASET.replace("points)", "points[::-1])"), 11),
    "a name twice": Mistake("names", "datasets", DATASET.replace('f"p{number}/0"', '"p/0"'), 11),
    "numbers of other people": Mistake(
        "names", "datasets", DATASET + "    def persons(self): return np.zeros(len(self), np.int64)", 11
    ),
    "pictures that change": Mistake(
        "repeats",
        "datasets",
        DATASET.replace("10 * number", "np.random.default_rng().integers(200)"),
        11,
        varies=r"\[\d\]",
    ),
    "one person in both splits": Mistake(
        "splits", "datasets", DATASET.replace('f"p{number}", points', '"p", points'), 11
    ),
    "a data set that workers cannot get": Mistake(
        "pickle",
        "datasets",
        DATASET + "    def load(self): self.read = lambda: 0",
        11,
        reason="Can't pickle local object 'Mine.load.<locals>.<lambda>'",
    ),
    "a preparation that is no array": Mistake(
        "prepare", "datasets", DATASET + "    def prepare(self, swapper): return {'scores': [1.0]}", 11
    ),
    "weights of other faces": Mistake(
        "weights", "datasets", DATASET + "    def weights(self): return np.ones(len(self) + 1)", 11
    ),
    "a reversed target without ground truth": Mistake(
        "reversed",
        "datasets",
        DATASET + "    is_reversible = True\n    def reversed_target(self, index, rng): return self[index]",
        11,
    ),
    # Estimators.
    "an estimator without quantity": Mistake(
        "quantity",
        "estimators",
        'class Mine(Estimator):\n    "Mine."\n    name = "mine"\n'
        "    def forward(self, faces): return faces.image.mean(dim=(2, 3))",
        11,
    ),
    # Benchmarks.
    "a benchmark that declares nothing": Mistake(
        "declares",
        "benchmarks",
        BENCHMARK.replace('    metrics: ClassVar = {"mine": MetricInfo("", "lower", "Mine.")}\n', ""),
        11,
    ),
    "metrics that are not declared": Mistake(
        "metrics",
        "benchmarks",
        BENCHMARK + "    def combine(self, parts, faces): return {'other': 1.0}\n" + MEASURES,
        11,
    ),
    "a number of a batch instead of values": Mistake(
        "metrics", "benchmarks", BENCHMARK + "    def measure_batch(self, batch, swap, faces): return {'mine': 1.0}", 11
    ),
    "a benchmark that measures all batches itself": Mistake(
        "install", "benchmarks", BENCHMARK + "    def forward(self, swaps, faces): return {'mine': 1.0}", 11
    ),
    "metrics that are infinite": Mistake(
        "metrics",
        "benchmarks",
        BENCHMARK
        + "    def measure_batch(self, batch, swap, faces): return {'mine': np.full(len(batch.same), np.inf)}",
        11,
    ),
    "a benchmark that remembers": Mistake(
        "alike",
        "benchmarks",
        BENCHMARK
        + "    calls = 0\n    def combine(self, parts, faces):\n        Mine.calls += 1\n"
        + "        return {'mine': float(Mine.calls)}\n"
        + MEASURES,
        11,
    ),
    "a benchmark alone that returns no rows": Mistake(
        "rows",
        "benchmarks",
        LOSS.replace("Loss", "Benchmark") + "    standalone = True\n    def measure(self, device): return []",
        11,
    ),
}


def seen(install: Callable[..., str], mistake: Mistake) -> tuple[str, str]:
    """The check that fails first, or "install", and the line that an author reads."""
    install(written(mistake), module="fsf_mine")
    if problems := registry().problems:
        return "install", problems[0]
    kind = mistake.hook.replace("_", "-")
    (cls,) = [each.cls for each in registry().components[kind].values() if each.plugin == "fsf_mine"]
    about = subject(kind, cls, {})
    for check in checks(kind, cls):
        try:
            check.run(about)
        except ContractError as error:
            return check.name, str(error)
    return "nothing", "no check fails"


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_told_in_one_line(
    install: Callable[..., str], what: str, check_message: Callable[..., None]
) -> None:
    mistake = MISTAKES[what]
    found, message = seen(install, mistake)
    assert (found, "\n" in message) == (mistake.check, False), message
    place = (
        rf"fsf_mine: .*fsf_mine\.py:{mistake.line}\b"
        if found == "install"
        else rf"\S+ \(fsf_mine\.py:{mistake.line}\): "
    )
    assert re.match(place, message) and mistake.reason in message, message
    check_message(re.sub(mistake.varies, "X", message), {mistake.reason: "REASON"} if mistake.reason else {})


def test_every_check_can_fail() -> None:
    every: set[Any] = {check.run for kind in KINDS for check in CHECKS[kind]} | {check.run for check in ALONE}
    failing = set()
    for mistake in MISTAKES.values():
        kind = mistake.hook.replace("_", "-")
        among = [*CHECKS.get(kind, ()), *(ALONE if kind == "benchmarks" else ())]
        failing |= {check.run for check in among if check.name == mistake.check}
    never = {check.__name__ for check in every - failing}
    # `base` and `device` have tests of their own below.
    assert never == {"base", "device"}, never


def test_base_can_fail(check_message: Callable[..., None]) -> None:
    class Other:
        """No component."""

    with pytest.raises(ContractError) as caught:
        CHECKS["losses"][0].run(subject("losses", Other, {}))
    place, _, rest = str(caught.value).partition(": ")
    assert re.fullmatch(r"Other \(test_mistakes\.py:\d+\)", place)
    check_message(rest)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_device_can_fail(install: Callable[..., str]) -> None:
    source = GENERATOR + "    def forward(self, z_id, z_att): return self.picture(z_id, z_att).cpu()"
    found, line = seen(install, Mistake("device", "generators", source, 11))
    assert found == "device" and "must return tensors on the device of its input" in line
