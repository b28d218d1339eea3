"""Define recipes: the typed form of the YAML files for training and evaluation.

*`use` names a component; every other key beside it is one of its options.* Recipes do not inherit, interpolate or
compute. recipes/README.md lists every key; it is generated from the descriptions below.
"""

import hashlib
import json
import math
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
OWN_PAIRS = "data"  # the data set's own list of pairs
DEFAULT_DETECTOR = {"use": "mtcnn"}


def is_alone(benchmark: str) -> bool:
    """Return whether a benchmark measures the code or the machine, without a method.

    Raises UserError if there is no such benchmark.
    """
    return bool(getattr(component("benchmarks", benchmark), "standalone", False))


class Keys(BaseModel):
    """Base of all models read from YAML: unknown keys are errors, values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Networks(Keys):
    """The four parts of a swapper; only `identity` in a recipe that trains an identity encoder."""

    identity: Annotated[Part, use("identity-encoders")] = Field(
        description="Embeds the source's identity. Trained only in recipes of its own, if it is trainable."
    )
    attributes: Annotated[Part, use("attribute-encoders")] | None = Field(
        default=None, description="Encodes the target's attributes: pose, expression, lighting, background."
    )
    generator: Annotated[Part, use("generators")] | None = Field(default=None, description="Generates the swap.")
    refiner: Annotated[Part, use("refiners")] | None = Field(default=None, description="Refines the generator's swap.")


class Pairs(Keys):
    """Sampling of sources for targets in training."""

    same: Fraction = Field(default=0.2, description="Fraction of pairs whose source is the target itself.")
    same_person: Fraction = Field(
        default=0.0, description="Fraction of pairs whose source is another image of the same person."
    )
    reversed: Fraction = Field(
        default=0.0,
        description="Fraction of pairs whose target is a swap, made before training from a picture of the source's "
        "person, which is the ground truth. Needs a data set with swaps, such as `swapped`.",
    )
    mirror: bool = Field(default=False, description="Flip half of all targets horizontally.")
    grey: Fraction = Field(
        default=0.0, description="Fraction of targets converted to grey, so that swaps into grey images stay grey."
    )

    @model_validator(mode="after")
    def _leaves_room(self) -> Self:
        fractions = (self.same, self.same_person, self.reversed)
        if math.fsum(fractions) > 1:
            total = " + ".join(f"{fraction:g}" for fraction in fractions)
            raise ValueError(f"same, same_person and reversed are fractions: {total} is more than 1")
        return self


class Optimizer(Keys):
    """Adam, or AdamW with weight decay."""

    lr: float = Field(gt=0, description="Learning rate.")
    betas: tuple[Beta, Beta] = Field(
        default=(0.0, 0.999),
        strict=False,
        description="Decay rates of the running means of gradients and of their squares.",
    )
    weight_decay: float = Field(default=0.0, ge=0, description="Decoupled weight decay.")
    critic_lr: float | None = Field(
        default=None,
        gt=0,
        description="Learning rate of the losses' networks, such as discriminators; null: `lr`.",
    )


class Schedule(Keys):
    """Learning rate schedule."""

    kind: Literal["constant", "cosine"] = Field(default="constant", description="Constant, or cosine decay to 0.")
    warmup: int = Field(default=0, ge=0, description="Steps of linear warm-up from 0.")


class Stage(Keys):
    """One training stage: networks, losses and number of steps."""

    name: Name = Field(description="Lower-case words joined by dashes; the name of its checkpoints.")
    train: list[Literal["identity", "attributes", "generator", "refiner"]] = Field(
        min_length=1, description="Networks to train; the others are frozen."
    )
    data: Annotated[Part, use("datasets")] | None = Field(
        default=None, description="The faces; null: the recipe's `data`."
    )
    pairs: Pairs = Field(default=Pairs(), description="Sampling of sources for targets.")
    losses: list[Annotated[Part, use("losses")]] = Field(
        min_length=1, description="Losses; the objective is their sum, each times its `weight`."
    )
    optimizer: Optimizer = Field(description="Optimizer of the weights.")
    schedule: Schedule = Field(default=Schedule(), description="Learning rate schedule.")
    ema: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Decay of an exponential moving average of the weights, the stage's result; null: none.",
    )
    steps: int = Field(ge=1, description="Optimizer steps.")
    batch_size: int = Field(ge=1, description="Pairs per batch.")
    accumulate: int = Field(default=1, ge=1, description="Batches per optimizer step, with averaged gradients.")
    clip: float | None = Field(
        default=None, gt=0, description="Largest norm of the gradient, by clipping; null: no limit."
    )
    precision: Precision = Field(
        default="fp32",
        description="bf16: mixed precision by autocast. auto: bf16 on devices with bfloat16 instructions (GPUs, "
        "processors with AMX or AVX-512 BF16), else fp32. Emulated bf16 is hundreds of times slower.",
    )
    channels_last: bool = Field(
        default=True, description="Channels-last memory format, which is faster on most hardware."
    )
    compile: bool = Field(
        default=False, description="Compile the networks with torch.compile: slower start, faster steps."
    )
    cuda_graph: bool = Field(
        default=False,
        description="On GPUs, capture a training step as a CUDA graph and replay it, which avoids launching thousands "
        "of small kernels. Losses must then not depend on Python state, such as a count of calls.",
    )
    optimizer_in_backward: bool = Field(
        default=False,
        description="Update each large weight in the backward pass, as soon as its gradient is computed, and free the "
        "gradient. Results are equal, with up to a quarter less memory. Not with `clip` or several processes.",
    )
    precompute_embeddings: Literal["auto"] | bool = Field(
        default="auto",
        description="true: embed all faces before the first step and keep the embeddings in memory. false: embed the "
        "sources of each step, without start-up time and memory per face. auto: true for up to 200 000 faces.",
    )
    workers: int = Field(default=0, ge=0, description="Data loading processes; 0: load in the training process.")
    checkpoint_every: int = Field(default=500, ge=1, description="Steps between checkpoints for --resume.")
    log_every: int = Field(default=10, ge=1, description="Steps between log entries.")
    init: str | None = Field(
        default=None,
        description="Initial weights: a file, relative to the current folder or the recipe's, or the name of an "
        "installed model. They are loaded into all networks that no earlier stage trains. Options that only add "
        "outputs, such as a mask, may differ.",
    )

    @field_validator("train")
    @classmethod
    def _trains_each_once(cls, train: list[str]) -> list[str]:
        if len(set(train)) < len(train):
            raise ValueError("contains a network twice; list each once")
        return train

    @property
    def paints(self) -> bool:
        """Return whether the stage trains swaps; False if it trains an identity encoder."""
        return "identity" not in self.train

    @model_validator(mode="after")
    def _frees_or_clips(self) -> Self:
        if self.optimizer_in_backward and self.clip is not None:
            raise ValueError("optimizer_in_backward: clip needs all gradients at once; remove one of the two")
        return self


class Evaluation(Keys):
    """Evaluation of the trained swapper."""

    data: Annotated[Part, use("datasets")] | None = Field(
        default=None, description="The faces; null: the recipe's `data`."
    )
    pairs: str | Annotated[int, Field(ge=1)] = Field(
        description="Pairs of sources and targets: a list in benchmarks/pairs, a CSV file (columns source and target), "
        "a number of pairs to sample, or `data` for the data set's own pairs."
    )
    benchmarks: list[Annotated[Part, use("benchmarks")]] = Field(min_length=1, description="Benchmarks to run.")
    batch_size: int = Field(default=32, ge=1, description="Pairs per batch.")

    @field_validator("benchmarks")
    @classmethod
    def _measure_swaps(cls, benchmarks: list[Part]) -> list[Part]:
        for part in benchmarks:
            if is_alone(part.name):
                raise ValueError(f"{part.name} measures no swaps; remove it, and run: fsf bench {part.name}")
        return benchmarks


class Recipe(Keys):
    """Complete recipe. It sets size, detector and data once; a stage or the evaluation may override the data."""

    name: Name = Field(description="Lower-case words joined by dashes; the name of the run's folder.")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of all random numbers.")
    requires: list[str] = Field(
        default=[],
        description="Required distributions of the components, as for pip, such as fsf-x>=0.2; the recipe is rejected "
        "if one is missing.",
    )
    size: Literal[32, 64, 128, 256, 512, 1024] = Field(description="Side of the aligned crops, in pixels.")
    detector: Annotated[Part, use("detectors")] = Field(
        default=DEFAULT_DETECTOR, validate_default=True, description="Face detector."
    )
    data: Annotated[Part, use("datasets")] = Field(description="Data set of faces.")
    networks: Networks = Field(description="Networks of the swapper.")
    stages: list[Stage] = Field(
        default=[],
        description="Training stages, in order; each starts from the previous one's weights; [] if none is needed.",
    )
    evaluation: Evaluation | None = Field(default=None, description="Evaluation of the result; null: none.")

    _folder: Path = PrivateAttr(default=Path())

    @field_validator("requires")
    @classmethod
    def _are_installed(cls, requires: list[str]) -> list[str]:
        """Raise ValidationError unless all required distributions are installed."""
        problems = [
            _problem((index,), what) for index, requirement in enumerate(requires) if (what := unmet(requirement))
        ]
        if problems:
            raise ValidationError.from_exception_data("Recipe", problems)
        return requires

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        """Raise ValidationError unless stages, networks and evaluation are consistent."""
        counts = Counter(stage.name for stage in self.stages)
        problems = []
        for index, stage in enumerate(self.stages):
            if counts[stage.name] > 1:
                what = f"{counts[stage.name]} stages are named {stage.name}; use unique names"
                problems.append(_problem(("stages", index, "name"), what))
            for name in stage.train:
                if (part := getattr(self.networks, name)) is None:
                    what = f"trains the {name}, but networks.{name} is missing; add it"
                    problems.append(_problem(("stages", index, "train"), what))
                elif name == "identity" and not getattr(component(part.kind, part.name), "trainable", False):
                    what = f"trains the identity encoder, but {part.name} is not trainable; remove it"
                    problems.append(_problem(("stages", index, "train"), what))
            if "identity" in stage.train and len(stage.train) > 1:
                what = "trains the identity encoder together with other networks; use a separate recipe"
                problems.append(_problem(("stages", index, "train"), what))
        if (self.networks.attributes is None) != (self.networks.generator is None):
            problems.append(_problem(("networks",), "has only one of attributes and generator; set both, or neither"))
        elif self.networks.generator is None:
            if self.networks.refiner is not None:
                problems.append(_problem(("networks", "refiner"), "needs a generator; add networks.generator"))
            if self.evaluation is not None:
                what = "measures swaps, but networks.generator is missing; remove it"
                problems.append(_problem(("evaluation",), what))
        if problems:
            raise ValidationError.from_exception_data("Recipe", problems)
        return self

    @classmethod
    def load(cls, path_or_name: str, sets: Sequence[str] = ()) -> "Recipe":
        """Read and validate a recipe file; return the recipe.

        Parameters
        ----------
        path_or_name:
            A YAML file, or the name of a bundled recipe; an existing file takes precedence.
        sets:
            Overrides, `stages.0.batch_size=8`, in order.

        Raises
        ------
        UserError
            All mistakes, one line each: `file: line 7: stages.0.steps: what`.
        """
        path = find(path_or_name)
        recipe = cls._checked(yaml.load_yaml(path), str(path), sets)
        recipe._folder = path.parent
        return recipe

    @classmethod
    def parse(cls, text: str, name: str, sets: Sequence[str] = ()) -> "Recipe":
        """Validate a recipe's text; return the recipe.

        `name` begins error messages; otherwise as `load`.
        """
        return cls._checked(yaml.parse_yaml(text, name), name, sets)

    @classmethod
    def _checked(cls, read: tuple[Any, yaml.Marks], name: str, sets: Sequence[str]) -> "Recipe":
        """Return the validated recipe of YAML values with overrides."""
        source = ConfigSource(read, name, {"detector": dict(DEFAULT_DETECTOR)})
        for override in sets:
            source.override(override)
        try:
            return cls.model_validate(source.data)
        except ValidationError as error:
            raise source.explain(error, cls) from None

    def relative(self, name: str) -> Path:
        """Return a path in the recipe, relative to the current folder, or else to the recipe's folder."""
        path = Path(name)
        return path if path.exists() else self._folder / path

    def faces(self, narrowed: Part | None) -> Part:
        """Return the data set of a stage or of the evaluation; by default the recipe's own.

        A data set that wraps another one without naming it (`{use: hard-examples}`) wraps the recipe's.
        """
        if narrowed is None:
            return self.data
        if "data" not in type(narrowed.options).model_fields:
            return narrowed
        options = narrowed.options.model_copy(update={"data": self.faces(narrowed.options.data)})
        return replace(narrowed, options=options)

    def dump(self) -> dict[str, Any]:
        """Return plain values for YAML and JSON, with every default."""
        return self.model_dump(mode="json")

    def dump_yaml(self) -> str:
        """Return the text of a file that `load` reads back to the same recipe."""
        return yaml.dump_yaml(self.dump())

    def digest(self) -> str:
        """Return the SHA-256 of the recipe's values as hexadecimal digits, independent of formatting."""
        text = json.dumps(self.dump(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _problem(path: tuple[str | int, ...], what: str) -> InitErrorDetails:
    """Return a validation error at a path."""
    return InitErrorDetails(type=PydanticCustomError("stage", "{what}", {"what": what}), loc=path, input=None)


def shipped() -> dict[str, Path]:
    """Return the paths of the bundled recipes by name."""
    return packed("fsf_recipes", ".yaml")


def find(path_or_name: str) -> Path:
    """Return the path of a recipe.

    Raises UserError if there is neither such a file nor such a name.
    """
    return named(path_or_name, shipped(), "recipe", "YAML")
