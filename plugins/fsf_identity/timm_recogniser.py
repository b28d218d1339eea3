"""A small face recogniser on one of timm's networks, which a recipe can train."""

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
SIDE = 96  # of the input, in pixels
DIM = 128


class TimmRecogniser(IdentityEncoder):
    """A network of timm's, of any architecture that it knows, trained from nothing by a recipe; 128 numbers.

    recipes/recogniser.yaml trains it. It is meant as a judge that may be shipped, not as a good recogniser.
    """

    name = "timm-recogniser"
    traceable = True
    dim = DIM
    trainable = True

    class Options(ComponentOptions):
        backbone: str = Field("mobilenetv3_small_050", description="The network's name in timm.")
        arguments: dict[str, Any] = Field(
            {}, description="What timm.create_model is given besides, such as the channels of its layers."
        )
        weights: Path | None = Field(
            None, description="What a run or `fsf export` left of it (.safetensors); null: as it starts, for training."
        )
        sha256: str | None = Field(
            None, pattern="^[0-9a-fA-F]{64}$", description="What the SHA-256 of `weights` must be; null: any."
        )
        match_threshold: float | None = Field(
            None,
            gt=-1,
            lt=1,
            description="Cosine from which two faces match, as `fsf bench verification` prints it for these weights; "
            "null: not measured, and what compares people refuses this encoder.",
        )

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.match_threshold = options.match_threshold
        self.crop = FixedCrop(BOX, (SIDE, SIDE))
        try:
            self.network = timm_network(options.backbone, num_classes=DIM, **options.arguments)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"arguments: timm makes no {options.backbone} of them: {error}") from None
        self.norm = nn.BatchNorm1d(DIM, affine=False)  # as ArcFace has it; without, all embeddings fell on one point
        self.eval()

    def load(self) -> None:
        """Read the weights, if there are any. Raises UserError if they cannot be read or are of another network."""
        path = self.options.weights
        if path is None:
            return
        state = below("identity", load_state(path, self.options.sha256))
        fill(self, state, f"{path}: is no {self.options.backbone} of a recogniser's recipe")
        self.requires_grad_(False)

    def forward(self, faces: FaceBatch) -> Tensor:
        """Embeddings (B, 128) of unit length; float32 also under autocast."""
        found: Tensor = self.network(self.crop(faces.image))
        with without_autocast(found.device):
            return F.normalize(self.norm(found.float()), dim=1)
