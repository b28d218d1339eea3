"""RetinaFace network. Deng et al., arXiv:1905.00641; layers and their names as in the public PyTorch code.

A backbone computes maps at strides 8, 16 and 32. A feature pyramid merges them, and a context module widens their
receptive fields (Najibi et al., SSH, arXiv:1708.03979, section 3.3). 1x1 convolutions predict class, box and five
landmarks for two anchors per cell. The paper's mesh decoder is omitted, as in the public code.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ANCHORS = 2  # per cell of a map
MOBILE_STAGES = [  # of MobileNet v1 at a quarter of its width: inputs, outputs, stride of each separable convolution
    [(8, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1)],
    [(64, 128, 2), *[(128, 128, 1)] * 5],
    [(128, 256, 2), (256, 256, 1)],
]


def unit(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, slope: float | None = 0.0) -> nn.Sequential:
    """Return a block of convolution, batch norm and leaky ReLU; no ReLU if `slope` is None."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    last = [] if slope is None else [nn.LeakyReLU(slope)]
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), *last)


def separable(inputs: int, outputs: int, stride: int, slope: float) -> nn.Sequential:
    """Return a depthwise separable convolution: 3x3 depthwise, then 1x1 pointwise, each with batch norm and ReLU."""
    depthwise = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)
    return nn.Sequential(
        depthwise, nn.BatchNorm2d(inputs), nn.LeakyReLU(slope),
        nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(slope),
    )  # fmt: skip


class MobileBody(nn.Module):
    """MobileNet v1 backbone at width 0.25."""

    widths = (64, 128, 256)

    def __init__(self, slope: float) -> None:
        super().__init__()
        first, *rest = ([separable(*layer, slope) for layer in stage] for stage in MOBILE_STAGES)
        self.stage1 = nn.Sequential(unit(3, 8, stride=2, slope=slope), *first)
        self.stage2, self.stage3 = (nn.Sequential(*stage) for stage in rest)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return feature maps at strides 8, 16, 32 of images (B, 3, H, W)."""
        fine = self.stage1(images)
        middle = self.stage2(fine)
        return [fine, middle, self.stage3(middle)]


class ResNetBody(nn.Module):
    """ResNet-50 without its classifier."""

    widths = (512, 1024, 2048)

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import resnet50  # type: ignore[import-untyped]  # takes a second

        whole = resnet50()
        for name, module in whole.named_children():
            if name not in ("avgpool", "fc"):
                self.add_module(name, module)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return feature maps at strides 8, 16, 32 of images (B, 3, H, W)."""
        maps = []
        for name, module in self.named_children():
            images = module(images)
            if name in ("layer2", "layer3", "layer4"):
                maps.append(images)
        return maps


class Pyramid(nn.Module):
    """Feature pyramid network: coarse maps are upsampled and added to finer ones (Lin et al., arXiv:1612.03144)."""

    def __init__(self, widths: tuple[int, ...], width: int, slope: float) -> None:
        super().__init__()
        self.output1, self.output2, self.output3 = (unit(inputs, width, 1, slope=slope) for inputs in widths)
        self.merge1, self.merge2 = (unit(width, width, slope=slope) for _ in range(2))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        fine, middle, coarse = (
            layer(level) for layer, level in zip((self.output1, self.output2, self.output3), maps, strict=True)
        )
        middle = self.merge2(middle + F.interpolate(coarse, size=middle.shape[2:], mode="nearest"))
        fine = self.merge1(fine + F.interpolate(middle, size=fine.shape[2:], mode="nearest"))
        return [fine, middle, coarse]


class Context(nn.Module):
    """SSH context module: parallel receptive fields of 3x3, 5x5 and 7x7."""

    def __init__(self, width: int, slope: float) -> None:
        super().__init__()
        self.conv3X3 = unit(width, width // 2, slope=None)
        self.conv5X5_1 = unit(width, width // 4, slope=slope)
        self.conv5X5_2 = unit(width // 4, width // 4, slope=None)
        self.conv7X7_2 = unit(width // 4, width // 4, slope=slope)
        self.conv7x7_3 = unit(width // 4, width // 4, slope=None)

    def forward(self, x: Tensor) -> Tensor:
        start = self.conv5X5_1(x)
        wide = self.conv7x7_3(self.conv7X7_2(start))
        return F.relu(torch.cat([self.conv3X3(x), self.conv5X5_2(start), wide], dim=1))


class Head(nn.Module):
    """Prediction head: `numbers` outputs for each anchor."""

    def __init__(self, width: int, numbers: int) -> None:
        super().__init__()
        self.numbers = numbers
        self.conv1x1 = nn.Conv2d(width, ANCHORS * numbers, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs (B, H * W * ANCHORS, numbers), row by row, of a map (B, C, H, W)."""
        return self.conv1x1(x).permute(0, 2, 3, 1).reshape(len(x), -1, self.numbers)


class RetinaFaceNetwork(nn.Module):
    """RetinaFace: backbone, feature pyramid, context modules and heads."""

    def __init__(self, body: MobileBody | ResNetBody, width: int, slope: float) -> None:
        super().__init__()
        self.body = body
        self.fpn = Pyramid(self.body.widths, width, slope)
        self.ssh1, self.ssh2, self.ssh3 = (Context(width, slope) for _ in range(3))
        self.ClassHead, self.BboxHead, self.LandmarkHead = (
            nn.ModuleList(Head(width, numbers) for _ in range(3)) for numbers in (2, 4, 10)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (B, N, 2) of background and face, box offsets (B, N, 4) and landmark offsets (B, N, 10).

        Offsets are relative to the N anchors.
        """
        maps = self.fpn(self.body(images))
        maps = [layer(level) for layer, level in zip((self.ssh1, self.ssh2, self.ssh3), maps, strict=True)]
        outputs = [
            torch.cat([head(level) for head, level in zip(heads, maps, strict=True)], dim=1)
            for heads in (self.ClassHead, self.BboxHead, self.LandmarkHead)
        ]
        return outputs[0], outputs[1], outputs[2]


def mobilenet(slope: float) -> RetinaFaceNetwork:
    """Return the network with MobileNet backbone, 0.4 million parameters, and leaky ReLUs of that slope."""
    return RetinaFaceNetwork(MobileBody(slope), 64, slope)


def resnet(slope: float) -> RetinaFaceNetwork:
    """Return the network with ResNet-50 backbone, whose ReLUs are plain; the other ReLUs have that slope."""
    return RetinaFaceNetwork(ResNetBody(), 256, slope)
