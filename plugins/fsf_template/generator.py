"""A generator from coarse to fine, with one block for each attribute map."""

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fsframework import ComponentOptions, Generator


class TemplateGenerator(Generator):
    """Each block adds an attribute map to the features so far, and scales their channels by the identity."""

    name = "template-generator"
    traceable = True

    class Options(ComponentOptions):
        width: int = Field(64, ge=8, multiple_of=8, description="Channels of each block.")

    options: Options

    def __init__(self, options: Options, size: int, id_dim: int, att_channels: list[int]) -> None:
        super().__init__(options, size, id_dim, att_channels)
        width = options.width
        self.attributes = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in att_channels)
        self.identity = nn.ModuleList(nn.Linear(id_dim, width) for _ in att_channels)
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for _ in att_channels)
        self.blocks = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in att_channels)
        self.paint = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, z_id: Tensor, z_att: list[Tensor]) -> Tensor:
        """Return the image (B, 3, S, S) in [-1, 1].

        The inputs are embeddings (B, id_dim) and attribute maps (B, C_k, H_k, W_k), coarse to fine.
        """
        h: Tensor | None = None
        layers = zip(self.attributes, self.identity, self.norms, self.blocks, z_att, strict=True)
        for attributes, identity, norm, block, z in layers:
            seen = attributes(z)
            if h is not None:
                seen = seen + F.interpolate(h, size=z.shape[2:], mode="bilinear")
            scale = 1 + identity(z_id)[..., None, None]  # (B, width, 1, 1)
            h = seen + block(F.leaky_relu(norm(seen) * scale, 0.1))
        assert h is not None
        h = F.interpolate(h, size=(self.size, self.size), mode="bilinear")
        painted: Tensor = self.paint(h).float().tanh()
        return painted
