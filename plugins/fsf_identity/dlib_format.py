"""Reads the layers of a network file as dlib writes them (`dlib::serialize`), without dlib.

Of the file's many fields only the parameter tensors matter: each follows the name of its layer. A tensor is a
version, four sizes and the values as little-endian float32. An integer is a control byte, whose low four bits count
the bytes that follow and whose top bit is the sign, then those bytes, least significant first.
"""

import re
from typing import NamedTuple

import numpy as np

from fsframework.core.errors import UserError

_LAYER = re.compile(rb"con_4|affine_|fc_2")
_TENSOR_VERSION = 2


class Layer(NamedTuple):
    """A layer with parameters: `con_4` (convolution), `affine_` or `fc_2` (fully connected)."""

    kind: str
    values: np.ndarray  # (N,) float32: a convolution's weights, then biases; an affine's factors, then shifts


def read_layers(data: bytes, name: str) -> list[Layer]:
    """The layers with parameters, from the input to the output.

    Parameters
    ----------
    data:
        The whole file.
    name:
        What errors call it.

    Raises
    ------
    UserError
        The data end too early, or are no such file.
    """
    layers: list[Layer] = []
    place = 0
    try:
        while found := _LAYER.search(data, place):  # starts behind the last tensor, so no value is taken for a name
            place = found.end()
            kind = found[0].decode()
            for _ in range(2 if kind == "fc_2" else 0):  # numbers of outputs and of inputs, which the tensor repeats
                _, place = _integer(data, place)
            values, place = _tensor(data, place)
            layers.append(Layer(kind, values))
    except ValueError as error:
        raise UserError(f"{name}: cannot be read as a dlib network: {error}; get the file again") from error
    if not layers or layers[-1].kind != "fc_2":
        what = "ends before the last layer" if layers else "holds no layer"
        raise UserError(f"{name}: cannot be read as a dlib network: it {what}; get the file again")
    return layers


def _integer(data: bytes, place: int) -> tuple[int, int]:
    """An integer and the place behind it."""
    if place >= len(data):
        raise ValueError("it ends in the middle of a layer")
    control = data[place]
    start, end = place + 1, place + 1 + (control & 0x0F)
    if end > len(data):
        raise ValueError("it ends in the middle of a layer")
    value = int.from_bytes(data[start:end], "little")
    return (-value if control & 0x80 else value), end


def _tensor(data: bytes, place: int) -> tuple[np.ndarray, int]:
    """A tensor, flat, and the place behind it."""
    version, place = _integer(data, place)
    if version != _TENSOR_VERSION:
        raise ValueError(f"a tensor has the version {version}, not {_TENSOR_VERSION}")
    count = 1
    for _ in range(4):
        size, place = _integer(data, place)
        if size < 0:
            raise ValueError("a tensor has a negative size")
        count *= size
    if place + 4 * count > len(data):
        raise ValueError("it ends in the middle of a tensor")
    return np.frombuffer(data, dtype="<f4", count=count, offset=place), place + 4 * count
