import torch

from fsf_template.generator import TemplateGenerator
from fsframework.testing import check_generator


def test_contract() -> None:
    check_generator(TemplateGenerator)


def test_identity_and_attributes_change_the_picture() -> None:
    torch.manual_seed(0)
    generator = TemplateGenerator(TemplateGenerator.Options(width=8), 32, 4, [2, 2])
    z_id, z_att = torch.randn(2, 4), [torch.randn(2, 2, 8, 8), torch.randn(2, 2, 16, 16)]
    picture = generator(z_id, z_att)
    assert picture.shape == (2, 3, 32, 32)
    assert not torch.allclose(picture, generator(-z_id, z_att))
    assert not torch.allclose(picture, generator(z_id, [z_att[0], -z_att[1]]))
