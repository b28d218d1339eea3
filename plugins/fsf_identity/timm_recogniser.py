"""Face recogniser with a timm backbone, trainable by a recipe."""

from pathlib import Path
from typing import Any

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fsf_identity.fixed_crop import FixedCrop
from fsframework.core.bases import timm_network
from fsframework.core.components import ComponentOptions, IdentityEncoder
from fsframework.core.errors import UserError
from fsframework.core.types import FaceBatch
from fsframework.ops.precision import without_autocast
from fsframework.utils.weights import below, fill, load_state

BOX = (0.2, 0.27, 0.6)  # left, top and width of the face in a whole-head crop: brows to chin
SIDE = 96  # input side in pixels
DIM = 128


class TimmRecogniser(IdentityEncoder):
    """Recogniser of any timm architecture, trained from scratch; unit embeddings of 128 dimensions.

    recipes/recogniser.yaml trains it. Its purpose is a judge with redistributable weights, not high accuracy.
    """

    name = "timm-recogniser"
    traceable = True
    dim = DIM
    trainable = True

    class Options(ComponentOptions):
        backbone: str = Field("mobilenetv3_small_050", description="Name of the timm model.")
        arguments: dict[str, Any] = Field(
            {}, description="Further arguments of timm.create_model, such as the channels of its layers."
        )
        weights: Path | None = Field(
            None, description="Weights of a run or `fsf export` (.safetensors); null: random, for training."
        )
        sha256: str | None = Field(
            None, pattern="^[0-9a-fA-F]{64}$", description="Expected SHA-256 of `weights`; null: any."
        )
        match_threshold: float | None = Field(
            None,
            gt=-1,
            lt=1,
            description="Cosine from which two faces match, as `fsf bench verification` prints it for these weights; "
            "null: not measured, and features that compare people reject this encoder.",
        )

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.match_threshold = options.match_threshold
        self.crop = FixedCrop(BOX, (SIDE, SIDE))
        try:
            self.network = timm_network(options.backbone, num_classes=DIM, **options.arguments)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"arguments: timm cannot build {options.backbone} with them: {error}; change them"
            ) from None
        self.norm = nn.BatchNorm1d(DIM, affine=False)  # as in ArcFace; without it embeddings collapsed
        self.eval()

    def load(self) -> None:
        """Load the weights, if the option `weights` is set. Raises UserError if unreadable or of another network."""
        path = self.options.weights
        if path is None:
            return
        state = below("identity", load_state(path, self.options.sha256))
        fill(self, state, f"{path}: is no {self.options.backbone} of a recogniser's recipe")
        self.requires_grad_(False)

    def forward(self, faces: FaceBatch) -> Tensor:
        """Return unit embeddings (B, 128), in float32 even under autocast."""
        output: Tensor = self.network(self.crop(faces.image))
        with without_autocast(output.device):
            return F.normalize(self.norm(output.float()), dim=1)
