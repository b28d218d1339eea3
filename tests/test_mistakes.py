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

from fsframework.plugins import KINDS, registry
from fsframework.testing import CHECKS, ContractError, checks, subject
from fsframework.testing_data import ALONE

HEAD = """\
from typing import ClassVar
import numpy as np
import torch
from pydantic import Field
from torch import nn
from fsframework import hookimpl
from fsframework.components import *
from fsframework.types import *
@hookimpl
def register_HOOK(): return [Mine]
"""


class Mistake(NamedTuple):
    """A plugin with one mistake."""

    check: str  # the check that finds it; "install" where the plugin cannot be used at all
    hook: str
    source: str
    message: str  # of the line, what follows `mine (fsf_mine.py:` or `fsf_mine: this plugin is left out: `


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
    figures: ClassVar = {"mine": Figure("", "lower", "Mine.")}
"""

MISTAKES = {
    # Plugins that cannot be used.
    "a module that is not installed": Mistake(
        "install",
        "losses",
        "import a_missing_module",
        "fsf_mine.py:11: ModuleNotFoundError: No module named 'a_missing_module'; install it, and name it among the "
        "plugin's dependencies",
    ),
    "a mistake in the syntax": Mistake(
        "install",
        "losses",
        "class Mine(Loss)\n",
        "fsf_mine.py:11: SyntaxError: expected ':'; mend it, or leave it out: FSF_BLOCK_PLUGINS=fsf_mine",
    ),
    "an error on import": Mistake(
        "install",
        "losses",
        "Mine = 1 / 0",
        "fsf_mine.py:11: ZeroDivisionError: division by zero; mend it, or leave it out: FSF_BLOCK_PLUGINS=fsf_mine",
    ),
    "a hook that is misspelt": Mistake(
        "install", "loses", LOSS, "fsf_mine.py:9: there is no hook register_loses; did you mean register_losses?"
    ),
    "a hook that is not marked": Mistake(
        "install",
        "losses",
        LOSS + "def register_detectors(): return []",
        "fsf_mine.py:14: register_detectors is not marked; write @hookimpl above it",
    ),
    "no hook": Mistake(
        "install",
        "losses",
        LOSS + "del register_losses",
        "fsf_mine.py:1: it implements no hook; write one, with @hookimpl above it",
    ),
    "a hook that returns a class instead of a list": Mistake(
        "install",
        "losses",
        LOSS + "@hookimpl\ndef register_refiners(): return Mine",
        "fsf_mine.py:14: register_refiners must return a list of Refiner classes, and returns <class 'fsf_mine.Mine'>",
    ),
    "a hook that returns nothing": Mistake(
        "install",
        "losses",
        LOSS + "@hookimpl\ndef register_losses(): [Mine]",
        "fsf_mine.py:14: register_losses must return a list of Loss classes, and returns None",
    ),
    "a hook that returns an instance": Mistake(
        "install",
        "losses",
        LOSS + "Mine = Mine(Mine.Options())",
        "fsf_mine.py:9: register_losses must return classes, not instances of them, and returns Mine()",
    ),
    "a wrong base class": Mistake(
        "install",
        "losses",
        'class Mine(nn.Module):\n    name = "mine"',
        "fsf_mine.py:11: Mine is no Loss, which register_losses must return; derive it from "
        "fsframework.components.Loss",
    ),
    "no name": Mistake(
        "install",
        "losses",
        'class Mine(Loss):\n    "Mine."',
        'fsf_mine.py:11: Mine has no name; give it one, such as name = "my-component"',
    ),
    "two components of one name": Mistake(
        "install",
        "losses",
        LOSS + 'class Other(Loss):\n    name = "mine"\n@hookimpl\ndef register_losses(): return [Mine, Other]',
        "fsf_mine.py:11 and fsf_mine.py:14: it brings 2 losses called mine; give each its own name",
    ),
    "a component that another plugin has": Mistake(
        "install",
        "losses",
        LOSS.replace('"mine"', '"dssim"'),
        "fsf_mine.py:11: the loss dssim is already brought by the plugin fsf_losses; rename yours, or leave one out "
        "by FSF_BLOCK_PLUGINS",
    ),
    # The class.
    "a name in the wrong form": Mistake(
        "name",
        "losses",
        LOSS.replace('"mine"', '"MyLoss"'),
        '11): a component must have a name of lower-case words joined by dashes, such as name = "my-loss"; its name is '
        "'MyLoss'",
    ),
    "no docstring": Mistake(
        "docstring",
        "losses",
        LOSS.replace('"Mine."', "pass"),
        "11): the class must have a docstring whose first line is a sentence that says what it is, for `fsf plugins "
        "list`; there is none",
    ),
    "an option without description": Mistake(
        "options",
        "losses",
        LOSS + "    class Options(Loss.Options):\n        gain: float = 1.0",
        '11): every option needs a description: Field(1.0, description="..."); gain has none',
    ),
    "options of a loss without weight": Mistake(
        "install",
        "losses",
        LOSS + "    class Options(ComponentOptions): pass",
        "fsf_mine.py:11: Mine.Options must derive from Loss.Options, which has weight and start "
        "(fsframework.components)",
    ),
    "options of another kind": Mistake(
        "install",
        "generators",
        GENERATOR + "    class Options: pass",
        "fsf_mine.py:11: Mine.Options must derive from ComponentOptions (fsframework.components)",
    ),
    "a file that is read in the constructor": Mistake(
        "allocates",
        "losses",
        LOSS
        + "    def __init__(self, options):\n        super().__init__(options)\n        open('/etc/hosts').close()",
        "11): the constructor must read no file; read it in load(); it opens hosts",
    ),
    "a tensor that ignores the current device": Mistake(
        "allocates",
        "losses",
        LOSS + "    def __init__(self, options):\n        super().__init__(options)\n"
        "        self.register_buffer('table', torch.from_numpy(np.zeros(3)))",
        "11): everything must be allocated on the current device, so that `fsf check` needs no memory; make tensors "
        "with torch, and read files in load(); on the meta device table is on cpu",
    ),
    "a constructor that forgets its options": Mistake(
        "allocates",
        "losses",
        LOSS + "    def __init__(self, options):\n        nn.Module.__init__(self)",
        "11): the constructor must keep its options as self.options; it does not; begin with super().__init__(...)",
    ),
    "a constructor with other arguments": Mistake(
        "allocates",
        "generators",
        GENERATOR.replace("options, size, id_dim, att_channels):", "options, size):"),
        "11): Mine(options, size, id_dim, att_channels) must work; it raises TypeError: Mine.__init__() takes 3 "
        "positional arguments but 5 were given",
    ),
    # Detectors.
    "a detector that finds nothing": Mistake(
        "faces",
        "detectors",
        DETECTOR + "    def forward(self, frames): return [[] for _ in frames]",
        "11): a detector must find the face of scikit-image's portrait (skimage.data.astronaut()); it finds none",
    ),
    "a detector that sees faces everywhere": Mistake(
        "frames",
        "detectors",
        DETECTOR + "    def forward(self, frames):\n"
        "        p = np.array([[205.0, 102], [247, 104], [225, 129], [202, 139], [245, 142]])\n"
        "        return [[Face(np.zeros(4), p, 0.5)] for _ in frames]",
        "11): an empty list must be returned for a frame without faces; it finds Face(box=array([0., 0., 0., 0.]), "
        "landmarks=array(",
    ),
    # Identity encoders.
    "embeddings of any length": Mistake(
        "embedding",
        "identity_encoders",
        IDENTITY + "    def forward(self, faces): return self.colour(faces)",
        "11): embeddings must have unit length (F.normalize), unless the class says metric = False; their lengths are",
    ),
    "an encoder without a threshold": Mistake(
        "threshold",
        "identity_encoders",
        IDENTITY.replace("    match_threshold = 0.5\n", "")
        + "    def forward(self, faces): return nn.functional.normalize(self.colour(faces), dim=1)",
        "11): an encoder whose cosines compare faces must declare match_threshold, a cosine in (-1, 1); measure it "
        "with fsf bench verification, or say metric = False; match_threshold is None",
    ),
    "a threshold that is no cosine": Mistake(
        "threshold",
        "identity_encoders",
        IDENTITY.replace("0.5", "1.0")
        + "    def forward(self, faces): return nn.functional.normalize(self.colour(faces), dim=1)",
        "11): an encoder whose cosines compare faces must declare match_threshold, a cosine in (-1, 1); measure it "
        "with fsf bench verification, or say metric = False; match_threshold is 1.0",
    ),
    "a threshold without a metric": Mistake(
        "threshold",
        "identity_encoders",
        IDENTITY + "    metric = False\n    def forward(self, faces): return self.colour(faces)",
        "11): an encoder with metric = False has no match_threshold; remove it; it declares 0.5",
    ),
    "an encoder left in train mode": Mistake(
        "frozen",
        "identity_encoders",
        IDENTITY + "    def train(self, mode=True): return nn.Module.train(self, mode)\n"
        "    def forward(self, faces): return nn.functional.normalize(self.colour(faces), dim=1)",
        "11): an identity encoder that is not trainable must stay in eval mode when train() is called; do not override "
        "train, or say trainable = True; itself is in train mode",
    ),
    "an encoder that blocks gradients": Mistake(
        "gradient",
        "identity_encoders",
        IDENTITY + "    @torch.no_grad()\n"
        "    def forward(self, faces): return nn.functional.normalize(self.colour(faces), dim=1)",
        "11): gradients must pass from the output to the image, unless the class says differentiable = False; they do "
        "not: look for no_grad, detach, item or numpy",
    ),
    # Attribute encoders.
    "maps with other channels than declared": Mistake(
        "maps",
        "attribute_encoders",
        'class Mine(AttributeEncoder):\n    "Mine."\n    name = "mine"\n    channels = [4]\n'
        "    def forward(self, faces): return [faces.image]",
        "11): the encoder must declare the channels of its maps as self.channels, a list; it declares [4] and returns "
        "[3]",
    ),
    # Generators.
    "a picture of the wrong shape": Mistake(
        "picture",
        "generators",
        GENERATOR + "    def forward(self, z_id, z_att): return self.picture(z_id, z_att)[:, :1]",
        "11): forward must return a picture (B, 3, S, S), or (B, 4, S, S) with a mask, (3, 3, 64, 64) here; it returns "
        "(3, 1, 64, 64)",
    ),
    "a picture without bounds": Mistake(
        "picture",
        "generators",
        GENERATOR + "    def forward(self, z_id, z_att): return 3 + self.picture(z_id, z_att)",
        "11): the picture must be from -1 to 1; end with torch.tanh; it is from",
    ),
    "a forward that raises": Mistake(
        "picture",
        "generators",
        GENERATOR + "    def forward(self, z_id, z_att):\n        return self.picture(z_id.reshape(7, 7), z_att)",
        "21): forward of a batch of 3 must work; it raises RuntimeError: shape '[7, 7]' is invalid for input of size "
        "384",
    ),
    "no forward": Mistake(
        "picture",
        "generators",
        GENERATOR,
        "11): forward of a batch of 3 must work; the class Mine does not implement it",
    ),
    "attention maps of the wrong shape": Mistake(
        "attention",
        "generators",
        GENERATOR + "    def forward(self, z_id, z_att): return self.picture(z_id, z_att)\n"
        "    def maps(self, z_id, z_att): return z_att",
        "11): maps must return a list of maps (B, 1, H, W); it returns a tensor (3, 16, 8, 8) of torch.float32",
    ),
    "weights that are never used": Mistake(
        "gradient",
        "generators",
        GENERATOR.replace("        self.paint", "        self.idle = nn.Linear(2, 2)\n        self.paint")
        + "    def forward(self, z_id, z_att): return self.picture(z_id, z_att)",
        "11): gradients must reach every weight; remove weights that are not used, or register frozen ones as buffers; "
        "none reaches idle.weight and 1 more",
    ),
    "dropout that never stops": Mistake(
        "seed",
        "generators",
        GENERATOR + "        \n    calls = 0\n    def forward(self, z_id, z_att):\n        Mine.calls += 1\n"
        "        return self.picture(z_id, z_att) * (0.5 if Mine.calls % 2 else 0.9)",
        "11): forward must give the same for the same input and seed in eval mode; two calls give different values",
    ),
    "noise in eval mode": Mistake(
        "seed",
        "generators",
        GENERATOR + "    def forward(self, z_id, z_att):\n"
        "        return self.picture(z_id, z_att) * (0.9 + 0.1 * torch.rand(()))",
        "11): forward must draw nothing at random in eval mode; with another seed it gives different values",
    ),
    "an input that is changed in place": Mistake(
        "untouched",
        "generators",
        GENERATOR + "    def forward(self, z_id, z_att):\n"
        "        h = self.picture(z_id, z_att)\n        z_id.detach().mul_(0.5)\n        return h",
        "11): forward must not change its inputs in place; clone() them; one of them is changed",
    ),
    "a size that is written out": Mistake(
        "meta",
        "generators",
        GENERATOR.replace("size=(self.size, self.size)", "size=(64, 64)")
        + "    def forward(self, z_id, z_att): return self.picture(z_id, z_att)",
        "11): the size must be what the constructor is given, or a ValueError say which sizes there are; at 128 px the "
        "picture is 64 px wide",
    ),
    "weights outside the state": Mistake(
        "state",
        "generators",
        GENERATOR + "    def load(self): self.tone = torch.rand(())\n"
        "    def forward(self, z_id, z_att): return self.picture(z_id, z_att) * getattr(self, 'tone', 1)",
        "11): an instance with another's state_dict must give the same; make tensors parameters or buffers "
        "(register_buffer), and layers attributes or a ModuleList; it gives something else",
    ),
    "sums that overflow in mixed precision": Mistake(
        "precision",
        "generators",
        GENERATOR + "    def forward(self, z_id, z_att):\n        h = self.paint(z_att[-1])\n"
        "        h = ((h + 4096) - 4096)\n"
        "        return nn.functional.interpolate(h, size=(self.size, self.size)).tanh() * z_id.mean() * 100",
        "11): in mixed precision (autocast to bfloat16) values must change by less than 5% of the largest on average; "
        "compute sums and norms in .float(); they change by",
    ),
    "rows that see each other": Mistake(
        "batch-of-one",
        "generators",
        GENERATOR + "    def forward(self, z_id, z_att):\n"
        "        h = self.picture(z_id, z_att)\n        return h - 0.5 * h.mean(dim=0, keepdim=True)",
        "11): a batch of one must give what the same row of a larger batch gives; take no means over the batch; they "
        "are",
    ),
    "rows in another order": Mistake(
        "order",
        "generators",
        GENERATOR + "    def forward(self, z_id, z_att):\n        h = self.picture(z_id, z_att)\n"
        "        return torch.cat([h[:1] * 0.5, h[1:]]) if len(h) > 1 else h",
        "11): each row of the output must follow from the same row of the input alone; with the batch in another "
        "order, rows are",
    ),
    "values asked for on the meta device": Mistake(
        "meta",
        "generators",
        GENERATOR + "    def forward(self, z_id, z_att):\n"
        "        h = self.picture(z_id, z_att)\n        return h if h.max().item() < 2 else h / 2",
        "22): forward of a batch of 3 must work; it raises RuntimeError: Tensor.item() cannot be called on "
        "meta tensors",
    ),
    "traceable, and it is not": Mistake(
        "traced",
        "generators",
        GENERATOR + "    traceable = True\n    def forward(self, z_id, z_att):\n"
        "        h = self.picture(z_id, z_att)\n        return h / 2 if not h.is_meta and h.max().item() > 2 else h",
        "11): the class says traceable, so torch.compile must capture forward in one graph; take branches on values "
        "out of it, or leave traceable out; it raises",
    ),
    # Refiners.
    "a refiner that returns a swap result": Mistake(
        "picture",
        "refiners",
        LOSS.replace("Loss", "Refiner") + "    def forward(self, draft, batch, swapper): return draft.z_id",
        "11): forward must return a picture (B, 3, S, S), (3, 3, 64, 64) here; it returns (3, 128)",
    ),
    # Losses.
    "a loss for each pair": Mistake(
        "number",
        "losses",
        LOSS + "    def forward(self, batch, output, swapper): return output.image.mean(dim=(1, 2, 3))",
        "11): a loss must return a scalar tensor, shape (); take the mean; it returns (3,)",
    ),
    "a loss with its weight in it": Mistake(
        "number",
        "losses",
        LOSS + "    def forward(self, batch, output, swapper): return self.options.weight * output.image.mean()",
        "11): forward must return the loss without its weight, which the framework multiplies by; it changes with it",
    ),
    "a loss without gradient": Mistake(
        "gradient",
        "losses",
        LOSS + "    def forward(self, batch, output, swapper): return output.image.detach().mean()",
        "11): gradients must pass from the output to the swap; they do not: look for no_grad, detach, item or numpy",
    ),
    "a discriminator that nobody trains": Mistake(
        "critic",
        "losses",
        LOSS
        + "    def __init__(self, options):\n        super().__init__(options)\n        self.net = nn.Conv2d(3, 1, 3)\n"
        "    def forward(self, batch, output, swapper): return self.net(output.image).mean()",
        "11): a loss with weights must train them in critic(batch, output), or freeze them (requires_grad_(False)); it "
        "has net.weight and no critic",
    ),
    "a loss that depends on the order": Mistake(
        "batch",
        "losses",
        LOSS + "    def forward(self, batch, output, swapper): return output.image[0].mean()",
        "11): a loss must not depend on the order of the batch; it is",
    ),
    # Data sets.
    "pictures in another size": Mistake(
        "faces",
        "datasets",
        DATASET.replace("self.size, self.size, 3", "32, 32, 3"),
        "11): the image of [0] must be (64, 64, 3) uint8 at size 64; it is (32, 32, 3) uint8",
    ),
    "landmarks in the wrong order": Mistake(
        "faces",
        "datasets",
        DATASET.replace("points)", "points[::-1])"),
        "11): the landmarks of [0] must be eye, eye, nose, mouth corner, mouth corner, the viewer's left first; they "
        "are",
    ),
    "a name twice": Mistake(
        "names",
        "datasets",
        DATASET.replace('f"p{number}/0"', '"p/0"'),
        "11): names must be unique in the data set; p/0 is there twice",
    ),
    "numbers of other people": Mistake(
        "names",
        "datasets",
        DATASET + "    def persons(self): return np.zeros(len(self), np.int64)",
        "11): persons() must number people() by their first appearance, -1 where unknown; it says [0, 0, 0, 0]",
    ),
    "pictures that change": Mistake(
        "repeats",
        "datasets",
        DATASET.replace("10 * number", "np.random.default_rng().integers(200)"),
        "11): a place must hold the same face at every call; [",
    ),
    "one person in both splits": Mistake(
        "splits",
        "datasets",
        DATASET.replace('f"p{number}", points', '"p", points'),
        "11): no person may be in both splits, train and test; p is in both",
    ),
    "a data set that workers cannot get": Mistake(
        "pickle",
        "datasets",
        DATASET + "    def load(self): self.read = lambda: 0",
        "11): pickling it (pickle.dumps) for worker processes must work; it raises AttributeError: Can't pickle local "
        "object 'Mine.load.<locals>.<lambda>'",
    ),
    "a preparation that is no array": Mistake(
        "prepare",
        "datasets",
        DATASET + "    def prepare(self, swapper): return {'scores': [1.0]}",
        "11): prepare must return arrays by name, for the run to keep; it returns {'scores': [1.0]}",
    ),
    # Estimators.
    "an estimator without quantity": Mistake(
        "quantity",
        "estimators",
        'class Mine(Estimator):\n    "Mine."\n    name = "mine"\n'
        "    def forward(self, faces): return faces.image.mean(dim=(2, 3))",
        '11): an estimator must declare what it reads, with its unit: quantity = "pose_deg"; quantity is None',
    ),
    # Benchmarks.
    "a benchmark that declares nothing": Mistake(
        "declares",
        "benchmarks",
        BENCHMARK.replace('    figures: ClassVar = {"mine": Figure("", "lower", "Mine.")}\n', ""),
        '11): a benchmark must declare figures, {"name": Figure("deg", "lower", "A sentence.")}; figures is None',
    ),
    "figures that are not declared": Mistake(
        "figures",
        "benchmarks",
        BENCHMARK + "    def forward(self, swaps, faces): return {'other': 1.0}",
        "11): forward must return the declared figures, mine; it returns other besides",
    ),
    "figures that are infinite": Mistake(
        "figures",
        "benchmarks",
        BENCHMARK + "    def forward(self, swaps, faces): return {'mine': np.full(3, np.inf)}",
        "11): figures must be finite, or NaN where a pair failed; mine is [inf inf inf]",
    ),
    "a benchmark that remembers": Mistake(
        "alike",
        "benchmarks",
        BENCHMARK
        + "    calls = 0\n    def forward(self, swaps, faces):\n        list(swaps)\n        Mine.calls += 1\n"
        "        return {'mine': float(Mine.calls)}",
        "11): a second call must give the same figures; mine is 1.0, and 2.0 then",
    ),
    "a benchmark alone that returns no rows": Mistake(
        "rows",
        "benchmarks",
        LOSS.replace("Loss", "Benchmark") + "    alone = True\n    def measure(self, device): return []",
        '11): measure must return {"rows": [{...}, ...]}; it returns []',
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
def test_a_mistake_is_told_in_one_line(install: Callable[..., str], what: str) -> None:
    mistake = MISTAKES[what]
    found, line = seen(install, mistake)
    assert (found, "\n" in line) == (mistake.check, False), line
    prefix = "fsf_mine: this plugin is left out: " if found == "install" else None
    if prefix:
        assert line == prefix + mistake.message
    else:
        assert re.sub(r"^\S+ \(fsf_mine\.py:", "", line).startswith(mistake.message), line


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


def test_base_can_fail() -> None:
    class Other:
        """No component."""

    with pytest.raises(ContractError, match=r"loss: the class must derive from .*\.Loss; it derives from ob"):
        CHECKS["losses"][0].run(subject("losses", Other, {}))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_device_can_fail(install: Callable[..., str]) -> None:
    source = GENERATOR + "    def forward(self, z_id, z_att): return self.picture(z_id, z_att).cpu()"
    found, line = seen(install, Mistake("device", "generators", source, ""))
    assert found == "device" and "must return tensors on the device of its input" in line
