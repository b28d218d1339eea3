import torch
from torch.nn import functional as F

from fsf_modulated.modulated import ModulatedGenerator, ModulatedLayer
from fsframework import part
from fsframework.testing import check_generator


def test_contract() -> None:
    check_generator(ModulatedGenerator, width=16, max_channels=32)


def test_contract_beside_the_attributes_of_faceshifter() -> None:
    check_generator(
        ModulatedGenerator, networks={"attributes": part("attribute-encoders", "aei-attributes", width=0.1)}
    )


def test_layer_equals_modulated_weights() -> None:
    torch.manual_seed(0)
    layer, h, z_id = ModulatedLayer(3, 4, 5), torch.randn(2, 3, 8, 8), torch.randn(2, 5)
    for row, found in enumerate(layer(h, z_id)):
        weight = layer.weight * (1 + layer.scale(z_id[row]))[:, None, None]
        weight = weight / weight.square().sum(dim=(1, 2, 3), keepdim=True).add(1e-8).sqrt()
        torch.testing.assert_close(found, F.conv2d(h[row][None], weight, layer.bias, padding=1)[0])
