"""Face recogniser with weights in the package: an independent judge without further downloads."""

from pathlib import Path

from torch import Tensor

from fsf_identity.timm_recogniser import TimmRecogniser
from fsframework.core.components import ComponentOptions, IdentityEncoder
from fsframework.core.types import FaceBatch

WEIGHTS = Path(__file__).with_name("lfw-recogniser.safetensors")
SHA256 = "43d4981dc88f7178cb224d10f869a723230b33ed560e6e6039c938aff63aa83f"
NETWORK = {"backbone": "resnet10t", "arguments": {"channels": [32, 64, 128, 160], "stem_width": 16}}


class LfwRecogniser(IdentityEncoder):
    """Small recogniser trained by recipes/recogniser.yaml on LFW's training people; unit embeddings of 128 dimensions.

    It shares the training images, but no weights or other supervision, with the networks in training losses. It is far
    less accurate than published recognisers; benchmarks/README.md lists its accuracy.

    `match_threshold` is the cosine with a false-accept rate of 1e-3 over 795 820 pairs of LFW's 586 held-out people.
    The true-accept rate is then 27.9 % (`fsf bench verification --set "judge={use: lfw-recogniser}" --set
    "data={use: face-folder, root: LFW}" --set split=all`, commit c30350f). On ORL's 40 people the threshold for that
    rate is 0.694.
    """

    name = "lfw-recogniser"
    traceable = True
    dim = TimmRecogniser.dim
    match_threshold = 0.545

    def __init__(self, options: ComponentOptions) -> None:
        super().__init__(options)
        network_options = TimmRecogniser.Options.model_validate(NETWORK | {"weights": WEIGHTS, "sha256": SHA256})
        self.recogniser = TimmRecogniser(network_options)
        self.eval()

    def load(self) -> None:
        """Load the weights. Raises UserError if the file in the package was changed."""
        self.recogniser.load()

    def forward(self, faces: FaceBatch) -> Tensor:
        """Return unit embeddings (B, 128), in float32 even under autocast."""
        embeddings: Tensor = self.recogniser(faces)
        return embeddings
