"""Head pose by FSA-Net (Yang, Chen, Lin, Chuang, "FSA-Net: Learning Fine-Grained Structure Aggregation", CVPR 2019).

No weights are included. The two files are those of omasaht/headpose-fsanet-pytorch (MIT licence), trained on 300W-LP.
onnxruntime runs them.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fsframework.core.components import ComponentOptions, Estimator
from fsframework.core.errors import UserError
from fsframework.core.types import FaceBatch
from fsframework.faces.align import crop_box
from fsframework.models.onnx_runtime import needing_onnx
from fsframework.utils.weights import read

SIDE = 64  # input side in pixels
# Left, top and width of the input, in units of the aligned crop's side. Of twelve boxes it has the lowest difference
# between an image and its mirror image. It exceeds the crop by 4 % at the bottom, where the edge is repeated.
BOX = (0.02, 0.08, 0.96)
SIGNS = (-1.0, 1.0, 1.0)  # from the networks' yaw, pitch and roll to those of `pnp`


class FSANet(Estimator):
    """Estimator of yaw, pitch and roll in degrees by FSA-Net, the mean of two networks, with user-supplied files.

    Signs are those of `pnp`. On 150 images of LFW at 128 px, an image and its mirror image differ by 1.1 degrees of
    yaw, 1.0 of pitch and 0.7 of roll (`3ddfa`: 1.3, 1.2 and 0.9). Correlations with `3ddfa` are 0.99 in yaw and 0.96
    in pitch; a turn of the image by 15 degrees changes the roll by 15.3 to 15.9.
    """

    name = "fsanet"
    quantity = "pose_deg"

    class Options(ComponentOptions):
        weights: Path = Field(description="ONNX file of FSA-Net whose scoring function is a 1x1 convolution.")
        variance_weights: Path = Field(description="ONNX file of FSA-Net whose scoring function is the variance.")

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.sessions: list[Any] = []
        self.weights_sha256: str | None = None  # of both files, for `fsframework.utils.weights.digest`
        self.eval()

    def load(self) -> None:
        """Load both networks.

        Raises
        ------
        UserError
            onnxruntime is not installed, or a file cannot be read or is another network.
        """
        paths = (self.options.weights, self.options.variance_weights)
        files = [read(path) for path in paths]
        self.sessions = [_session(path, data) for path, data in zip(paths, files, strict=True)]
        self.weights_sha256 = hashlib.sha256(b"".join(hashlib.sha256(data).digest() for data in files)).hexdigest()

    def forward(self, faces: FaceBatch) -> Tensor:
        """Return poses (B, 3) in degrees, float64 on the images' device."""
        x = crop_box(faces.image.float(), BOX, (SIDE, SIDE)).flip(1) * (127.5 / 128)  # BGR, (0..255 - 127.5) / 128
        inputs = x.cpu().numpy()
        poses = [
            np.mean([session.run(None, {"input": image[None]})[0][0] for session in self.sessions], axis=0)
            for image in inputs
        ]  # the graphs take one image each
        return torch.tensor(np.array(poses, np.float64).reshape(-1, 3) * SIGNS, device=faces.image.device)


def _session(path: Path, data: bytes) -> Any:
    """Return the session of an ONNX file's bytes, of one thread, as such small networks need no more."""
    with needing_onnx():
        import onnxruntime  # type: ignore[import-untyped]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # warnings on constants that are folded
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # damaged files raise errors of several types
        raise UserError(f"{path}: cannot be read as ONNX; get the file again") from error
    shapes = [(value.name, list(value.shape)) for value in (*session.get_inputs(), *session.get_outputs())]
    if shapes != [("input", [1, 3, SIDE, SIDE]), ("output", [1, 3])]:
        raise UserError(f"{path}: is another network than FSA-Net for {SIDE}x{SIDE} pixels; get its file")
    return session
