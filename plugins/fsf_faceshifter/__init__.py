"""FaceShifter (arXiv:1912.13457): AEI-Net, HEAR-Net, their losses, hard examples, and trained weights."""

from fsf_faceshifter.ablations import (
    AdainGenerator,
    AddGenerator,
    CatGenerator,
    CompressedGenerator,
    SpadeGenerator,
)
from fsf_faceshifter.aei_net import AadGenerator, AeiAttributes
from fsf_faceshifter.hard_examples import HardExamples
from fsf_faceshifter.hear_net import HearNet
from fsf_faceshifter.losses import Attribute, Change
from fsf_faceshifter.shipped import MODELS
from fsf_faceshifter.timm_attributes import TimmAttributes
from fsframework import hookimpl
from fsframework.core.components import AttributeEncoder, Dataset, Generator, Loss, Model, Refiner


@hookimpl
def register_attribute_encoders() -> list[type[AttributeEncoder]]:
    return [AeiAttributes, TimmAttributes]


@hookimpl
def register_generators() -> list[type[Generator]]:
    return [AadGenerator, AdainGenerator, AddGenerator, CatGenerator, CompressedGenerator, SpadeGenerator]


@hookimpl
def register_refiners() -> list[type[Refiner]]:
    return [HearNet]


@hookimpl
def register_losses() -> list[type[Loss]]:
    return [Attribute, Change]


@hookimpl
def register_datasets() -> list[type[Dataset]]:
    return [HardExamples]


@hookimpl
def register_models() -> list[Model]:
    return MODELS
