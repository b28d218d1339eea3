import torch

from fsf_template.identity_encoder import TemplateIdentityEncoder
from fsframework.core.types import FaceBatch
from fsframework.testing.check_component import check_identity_encoder
from fsframework.testing.samples import batch_of


def test_contract() -> None:
    check_identity_encoder(TemplateIdentityEncoder)


def test_light_does_not_matter() -> None:
    encoder = TemplateIdentityEncoder(TemplateIdentityEncoder.Options())
    image = batch_of([0, 1, 2]).source.image
    darker = encoder(FaceBatch.of(0.5 * image - 0.2))
    torch.testing.assert_close(encoder(FaceBatch.of(image)), darker, atol=1e-5, rtol=0)
