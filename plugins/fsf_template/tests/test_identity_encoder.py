import torch

from fsf_template.identity_encoder import TemplateIdentityEncoder
from fsframework import FaceBatch
from fsframework.testing import batch_of, check_identity_encoder


def test_contract() -> None:
    check_identity_encoder(TemplateIdentityEncoder)


def test_light_does_not_matter() -> None:
    encoder = TemplateIdentityEncoder(TemplateIdentityEncoder.Options())
    image = batch_of([0, 1, 2]).source.image
    darker = encoder(FaceBatch.of(0.5 * image - 0.2))
    torch.testing.assert_close(encoder(FaceBatch.of(image)), darker, atol=1e-5, rtol=0)
