"""The recogniser that comes with the framework: a judge where only pip packages are at hand."""

from pathlib import Path

from torch import Tensor

from fsf_identity.timm_recogniser import TimmRecogniser
from fsframework.core.components import ComponentOptions, IdentityEncoder
from fsframework.core.types import FaceBatch

WEIGHTS = Path(__file__).with_name("lfw-recogniser.safetensors")
SHA256 = "43d4981dc88f7178cb224d10f869a723230b33ed560e6e6039c938aff63aa83f"
NETWORK = {"backbone": "resnet10t", "arguments": {"channels": [32, 64, 128, 160], "stem_width": 16}}


class LfwRecogniser(IdentityEncoder):
    """A small recogniser with the weights that recipes/recogniser.yaml made on LFW's training people; 128 numbers.

    It shares no weights, and no training signal but the pictures, with the networks that swaps are trained against.
    benchmarks/README.md says how well it knows people again: far less well than published recognisers.

    `match_threshold` is the cosine with a false-accept rate of 1e-3 over 795 820 pairs of LFW's 586 held-out people,
    where 27.9 % of the pairs of one person match (`fsf bench verification --set "judge={use: lfw-recogniser}" --set
    "data={use: face-folder, root: LFW}" --set split=all`, commit c30350f). On ORL's 40 people 0.694 has that rate.
    """

    name = "lfw-recogniser"
    traceable = True
    dim = TimmRecogniser.dim
    match_threshold = 0.545

    def __init__(self, options: ComponentOptions) -> None:
        super().__init__(options)
        made = TimmRecogniser.Options.model_validate(NETWORK | {"weights": WEIGHTS, "sha256": SHA256})
        self.recogniser = TimmRecogniser(made)
        self.eval()

    def load(self) -> None:
        """Read the weights. Raises UserError if they are not those that came with the framework."""
        self.recogniser.load()

    def forward(self, faces: FaceBatch) -> Tensor:
        """Embeddings (B, 128) of unit length; float32 also under autocast."""
        found: Tensor = self.recogniser(faces)
        return found
