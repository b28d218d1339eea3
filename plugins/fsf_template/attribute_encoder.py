"""An attribute encoder that repeatedly halves the image."""

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fsframework import AttributeEncoder, ComponentOptions, FaceBatch


class TemplateAttributeEncoder(AttributeEncoder):
    """One convolution for each resolution from the crop's down to 2x2, whose outputs are the attribute maps."""

    name = "template-attribute-encoder"
    traceable = True

    class Options(ComponentOptions):
        channels: int = Field(32, ge=1, description="Channels of each map.")

    options: Options

    def __init__(self, options: Options, size: int) -> None:
        super().__init__(options, size)
        levels = size.bit_length() - 1  # sides 2, 4, ..., size
        self.channels = levels * [options.channels]
        self.first = nn.Conv2d(3, options.channels, 3, padding=1)
        self.down = nn.ModuleList(
            nn.Conv2d(options.channels, options.channels, 4, stride=2, padding=1) for _ in range(levels - 1)
        )

    def forward(self, faces: FaceBatch) -> list[Tensor]:
        """Return attribute maps from (B, channels, 2, 2) to (B, channels, S, S), coarse to fine."""
        maps = [F.leaky_relu(self.first(faces.image), 0.1)]
        for layer in self.down:
            maps.append(F.leaky_relu(layer(maps[-1]), 0.1))
        return maps[::-1]
