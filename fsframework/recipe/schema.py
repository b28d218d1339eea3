"""A recipe: the typed form of the YAML file that says what is trained, on what, how, and how it is measured.

*`use` names a component; every other key beside it is one of its options.* Recipes do not inherit, interpolate or
compute. recipes/README.md lists every key; it is generated from the descriptions below.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from fsframework.core.part import Part, use
from fsframework.core.registry import component, unmet
from fsframework.ops.precision import Precision
from fsframework.recipe.overrides import ConfigSource
from fsframework.utils import yaml
from fsframework.utils.files import named, packed

Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
OWN_PAIRS = "data"  # the list of pairs that a data set brings
DEFAULT_DETECTOR = {"use": "mtcnn"}


def is_alone(benchmark: str) -> bool:
    """Whether a benchmark measures the code or the machine, and no method. Raises UserError if there is none."""
    return bool(getattr(component("benchmarks", benchmark), "standalone", False))


class Keys(BaseModel):
    """Base of everything that is read from YAML: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Networks(Keys):
    """The four parts of a swapper; in a recipe that trains a recogniser only the first."""

    identity: Annotated[Part, use("identity-encoders")] = Field(
        description="Says who the source is. Trained only in recipes for that, and only if it can be."
    )
    attributes: Annotated[Part, use("attribute-encoders")] | None = Field(
        default=None, description="Says how the target is shown: pose, expression, light, background."
    )
    generator: Annotated[Part, use("generators")] | None = Field(default=None, description="Paints the swap.")
    refiner: Annotated[Part, use("refiners")] | None = Field(default=None, description="Improves the generator's swap.")


class Pairs(Keys):
    """How sources are chosen for targets in training."""

    same: Fraction = Field(default=0.2, description="Share of pairs whose source is the target's own picture.")
    same_person: Fraction = Field(
        default=0.0, description="Share of pairs whose source is another picture of the same person."
    )
    mirror: bool = Field(default=False, description="Mirror half of all targets, left to right.")
    grey: Fraction = Field(
        default=0.0, description="Share of targets that lose their colours, so that swaps into grey pictures stay grey."
    )

    @model_validator(mode="after")
    def _leaves_room(self) -> Self:
        if self.same + self.same_person > 1:
            raise ValueError(f"same and same_person are shares: {self.same:g} + {self.same_person:g} is more than 1")
        return self


class Optimizer(Keys):
    """Adam; with weight decay, AdamW."""

    lr: float = Field(gt=0, description="Learning rate.")
    betas: tuple[Beta, Beta] = Field(
        default=(0.0, 0.999), strict=False, description="Decay of the running means of gradients and of their squares."
    )
    weight_decay: float = Field(default=0.0, ge=0, description="Decoupled weight decay.")
    critic_lr: float | None = Field(
        default=None,
        gt=0,
        description="Learning rate of the losses' own networks, such as discriminators; null: as `lr`.",
    )


class Schedule(Keys):
    """How the learning rate changes."""

    kind: Literal["constant", "cosine"] = Field(
        default="constant", description="Constant, or falling to 0 along a cosine."
    )
    warmup: int = Field(default=0, ge=0, description="Steps in which the rate first rises linearly from 0.")


class Stage(Keys):
    """One training: which networks, against which losses, for how long."""

    name: Name = Field(description="Lower-case words joined by dashes; checkpoints are called so.")
    train: list[Literal["identity", "attributes", "generator", "refiner"]] = Field(
        min_length=1, description="The networks that are trained; the others are frozen."
    )
    data: Annotated[Part, use("datasets")] | None = Field(
        default=None, description="The faces; null: the recipe's `data`."
    )
    pairs: Pairs = Field(default=Pairs(), description="How sources are chosen for targets.")
    losses: list[Annotated[Part, use("losses")]] = Field(
        min_length=1, description="What is made small: the sum of these losses, each times its `weight`."
    )
    optimizer: Optimizer = Field(description="How the weights are changed.")
    schedule: Schedule = Field(default=Schedule(), description="How the learning rate changes.")
    ema: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Keep a running mean of the weights with this decay, and use it; null: none.",
    )
    steps: int = Field(ge=1, description="Optimizer steps.")
    batch_size: int = Field(ge=1, description="Pairs that are worked on at once.")
    accumulate: int = Field(default=1, ge=1, description="Batches whose gradients are averaged into one step.")
    clip: float | None = Field(default=None, gt=0, description="Largest norm of the gradient; null: no limit.")
    precision: Precision = Field(
        default="fp32",
        description="bf16: mixed precision by autocast; auto: bf16 where the device multiplies it in hardware (GPUs, "
        "processors with AMX or AVX-512's instructions for it), fp32 elsewhere, where bf16 is emulated and hundreds of "
        "times slower.",
    )
    channels_last: bool = Field(
        default=True, description="Keep images in channels-last order, which most hardware prefers."
    )
    compile: bool = Field(
        default=False, description="Compile the networks with torch.compile: a slow start, faster steps."
    )
    cuda_graph: bool = Field(
        default=False,
        description="On GPUs, record a step's work once and replay it (a CUDA graph), which spares launching "
        "thousands of small kernels. Losses of plugins must then not depend on Python's own state, such as a count of "
        "calls.",
    )
    optimizer_in_backward: bool = Field(
        default=False,
        description="Update each large weight as soon as its gradient is there, and free that: the same numbers in up "
        "to a quarter less memory. Not with `clip`, which needs all gradients, nor in several processes.",
    )
    precompute_embeddings: Literal["auto"] | bool = Field(
        default="auto",
        description="When sources are embedded. true: all faces before the first step, which are kept in memory; "
        "false: those of a step, which starts at once and takes no memory for each face; auto: true for up to "
        "200 000 faces.",
    )
    workers: int = Field(default=0, ge=0, description="Processes that read data; 0: none beside the training process.")
    checkpoint_every: int = Field(default=500, ge=1, description="Steps between the states that a run can go on from.")
    log_every: int = Field(default=10, ge=1, description="Steps between lines of the log.")
    init: str | None = Field(
        default=None,
        description="Weights to start from: a file, seen from the current folder or from the recipe's, or the name of "
        "an installed model. They are given to all networks that no earlier stage trains.",
    )

    @field_validator("train")
    @classmethod
    def _trains_each_once(cls, train: list[str]) -> list[str]:
        if len(set(train)) < len(train):
            raise ValueError("names a network twice; name each once")
        return train

    @property
    def paints(self) -> bool:
        """Whether swaps are painted; else faces are recognised, and none is swapped."""
        return "identity" not in self.train

    @model_validator(mode="after")
    def _frees_or_clips(self) -> Self:
        if self.optimizer_in_backward and self.clip is not None:
            raise ValueError("optimizer_in_backward: clip needs all gradients at once; leave one of the two out")
        return self


class Evaluation(Keys):
    """How the trained swapper is measured."""

    data: Annotated[Part, use("datasets")] | None = Field(
        default=None, description="The faces; null: the recipe's `data`."
    )
    pairs: str | Annotated[int, Field(ge=1)] = Field(
        description="Who is swapped with whom: the name of a list in benchmarks/pairs, a CSV file with the columns "
        "source and target, a number of pairs to draw from the seed, or `data` for the data set's own pairs."
    )
    benchmarks: list[Annotated[Part, use("benchmarks")]] = Field(min_length=1, description="What is measured.")
    batch_size: int = Field(default=32, ge=1, description="Pairs that are swapped at once.")

    @field_validator("benchmarks")
    @classmethod
    def _measure_swaps(cls, benchmarks: list[Part]) -> list[Part]:
        for part in benchmarks:
            if is_alone(part.name):
                raise ValueError(f"{part.name} measures no swaps; leave it out, and run: fsf bench {part.name}")
        return benchmarks


class Recipe(Keys):
    """A whole recipe. Size, detector and data stand once; a stage or the evaluation may narrow the data."""

    name: Name = Field(description="Lower-case words joined by dashes; the run's folder is called so.")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Of everything that is drawn at random.")
    requires: list[str] = Field(
        default=[],
        description="Distributions that bring the components, as for pip, such as fsf-x>=0.2; without them the recipe "
        "is refused.",
    )
    size: Literal[32, 64, 128, 256, 512, 1024] = Field(description="Side of the aligned crops in pixels.")
    detector: Annotated[Part, use("detectors")] = Field(
        default=DEFAULT_DETECTOR, validate_default=True, description="Finds faces in pictures."
    )
    data: Annotated[Part, use("datasets")] = Field(description="The faces.")
    networks: Networks = Field(description="The four parts of the swapper.")
    stages: list[Stage] = Field(
        default=[],
        description="Trainings, in order; each starts from what the last left. None where nothing learns.",
    )
    evaluation: Evaluation | None = Field(default=None, description="How the result is measured; null: not at all.")

    _folder: Path = PrivateAttr(default=Path())

    @field_validator("requires")
    @classmethod
    def _are_installed(cls, requires: list[str]) -> list[str]:
        problems = [
            _problem((place,), what) for place, requirement in enumerate(requires) if (what := unmet(requirement))
        ]
        if problems:
            raise ValidationError.from_exception_data("Recipe", problems)
        return requires

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        times = Counter(stage.name for stage in self.stages)
        problems = []
        for number, stage in enumerate(self.stages):
            if times[stage.name] > 1:
                what = f"{times[stage.name]} stages are called {stage.name}; give each its own name"
                problems.append(_problem(("stages", number, "name"), what))
            for name in stage.train:
                if (part := getattr(self.networks, name)) is None:
                    what = f"trains the {name}, and networks.{name} is missing; name one"
                    problems.append(_problem(("stages", number, "train"), what))
                elif name == "identity" and not getattr(component(part.kind, part.name), "trainable", False):
                    what = f"trains the identity encoder, and {part.name} cannot be trained; leave it out"
                    problems.append(_problem(("stages", number, "train"), what))
            if "identity" in stage.train and len(stage.train) > 1:
                what = "trains the identity encoder beside others; give it a recipe of its own"
                problems.append(_problem(("stages", number, "train"), what))
        if (self.networks.attributes is None) != (self.networks.generator is None):
            problems.append(_problem(("networks",), "has one of attributes and generator; name both, or neither"))
        elif self.networks.generator is None:
            if self.networks.refiner is not None:
                problems.append(_problem(("networks", "refiner"), "needs a generator; name one"))
            if self.evaluation is not None:
                what = "measures swaps, and networks.generator is missing; leave it out"
                problems.append(_problem(("evaluation",), what))
        if problems:
            raise ValidationError.from_exception_data("Recipe", problems)
        return self

    @classmethod
    def load(cls, path_or_name: str, sets: Sequence[str] = ()) -> "Recipe":
        """Read and check a recipe.

        Parameters
        ----------
        path_or_name:
            A YAML file, or the name of a recipe that comes with the framework; a file wins.
        sets:
            Overrides, `stages.0.batch_size=8`, in order.

        Raises
        ------
        UserError
            With everything that is wrong, one line for each: `file: line 7: stages.0.steps: what`.
        """
        path = find(path_or_name)
        recipe = cls._checked(yaml.load_yaml(path), str(path), sets)
        recipe._folder = path.parent
        return recipe

    @classmethod
    def parse(cls, text: str, name: str, sets: Sequence[str] = ()) -> "Recipe":
        """Check a recipe that was not read from a file of its own; errors call it `name`. Otherwise as `load`."""
        return cls._checked(yaml.parse_yaml(text, name), name, sets)

    @classmethod
    def _checked(cls, read: tuple[Any, yaml.Marks], name: str, sets: Sequence[str]) -> "Recipe":
        source = ConfigSource(read, name, {"detector": dict(DEFAULT_DETECTOR)})
        for override in sets:
            source.override(override)
        try:
            return cls.model_validate(source.data)
        except ValidationError as error:
            raise source.explain(error, cls) from None

    def relative(self, name: str) -> Path:
        """The path of a file that the recipe names: seen from the current folder, or else from the recipe's own."""
        path = Path(name)
        return path if path.exists() else self._folder / path

    def faces(self, narrowed: Part | None) -> Part:
        """The data set of a stage or of the evaluation: the recipe's own where it names none.

        A data set that wraps another one and does not name it (`{use: hardest}`) wraps the recipe's.
        """
        if narrowed is None:
            return self.data
        if "data" not in type(narrowed.options).model_fields:
            return narrowed
        options = narrowed.options.model_copy(update={"data": self.faces(narrowed.options.data)})
        return replace(narrowed, options=options)

    def dump(self) -> dict[str, Any]:
        """Plain values, for YAML and JSON, with every default written out."""
        return self.model_dump(mode="json")

    def dump_yaml(self) -> str:
        """The text of a file that `load` reads back to the same recipe."""
        return yaml.dump_yaml(self.dump())

    def digest(self) -> str:
        """SHA-256 of what the recipe says, as hexadecimal digits: equal for equal recipes, however they are written."""
        text = json.dumps(self.dump(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _problem(place: tuple[str | int, ...], what: str) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError("stage", "{what}", {"what": what}), loc=place, input=None)


def shipped() -> dict[str, Path]:
    """The recipes that come with the framework, by name."""
    return packed("fsf_recipes", ".yaml")


def find(path_or_name: str) -> Path:
    """The file of a recipe. Raises UserError if there is neither such a file nor such a name."""
    return named(path_or_name, shipped(), "recipe", "YAML")
