"""Synthetic occluders: a dataset wrapper that covers targets with hands, glasses, masks and other objects."""

from fsf_occluders.dataset import Occluded
from fsframework import hookimpl
from fsframework.core.components import Dataset


@hookimpl
def register_datasets() -> list[type[Dataset]]:
    return [Occluded]
