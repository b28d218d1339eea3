"""Read the layers of a network file in dlib's format (`dlib::serialize`), without dlib.

Only the parameter tensors are read; each follows the name of its layer. A tensor is a version, four sizes and the
values as little-endian float32. An integer starts with a control byte: its low four bits count the bytes that follow,
its top bit is the sign. Those bytes come least significant first.
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
    """Return the layers with parameters, in order from input to output.

    Parameters
    ----------
    data:
        Content of the file.
    name:
        Name of the file in error messages.

    Raises
    ------
    UserError
        The data are truncated, or not in dlib's format.
    """
    layers: list[Layer] = []
    position = 0
    try:
        while match := _LAYER.search(data, position):  # starts after the last tensor, so that no value matches a name
            position = match.end()
            kind = match[0].decode()
            for _ in range(2 if kind == "fc_2" else 0):  # numbers of outputs and inputs, which the tensor repeats
                _, position = _integer(data, position)
            values, position = _tensor(data, position)
            layers.append(Layer(kind, values))
    except ValueError as error:
        raise UserError(f"{name}: cannot be read as a dlib network: {error}; get the file again") from error
    if not layers or layers[-1].kind != "fc_2":
        problem = "ends before the last layer" if layers else "holds no layer"
        raise UserError(f"{name}: cannot be read as a dlib network: it {problem}; get the file again")
    return layers


def _integer(data: bytes, position: int) -> tuple[int, int]:
    """Return the integer at `position` and the position after it."""
    if position >= len(data):
        raise ValueError("it ends in the middle of a layer")
    control = data[position]
    start, end = position + 1, position + 1 + (control & 0x0F)
    if end > len(data):
        raise ValueError("it ends in the middle of a layer")
    value = int.from_bytes(data[start:end], "little")
    return (-value if control & 0x80 else value), end


def _tensor(data: bytes, position: int) -> tuple[np.ndarray, int]:
    """Return the values (N,) of the tensor at `position` and the position after it."""
    version, position = _integer(data, position)
    if version != _TENSOR_VERSION:
        raise ValueError(f"a tensor has the version {version}, not {_TENSOR_VERSION}")
    count = 1
    for _ in range(4):
        size, position = _integer(data, position)
        if size < 0:
            raise ValueError("a tensor has a negative size")
        count *= size
    if position + 4 * count > len(data):
        raise ValueError("it ends in the middle of a tensor")
    return np.frombuffer(data, dtype="<f4", count=count, offset=position), position + 4 * count
