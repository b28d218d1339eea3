from fsf_template.attribute_encoder import TemplateAttributeEncoder
from fsframework.testing import batch_of, check_attribute_encoder


def test_contract() -> None:
    check_attribute_encoder(TemplateAttributeEncoder)


def test_every_side_has_a_map() -> None:
    encoder = TemplateAttributeEncoder(TemplateAttributeEncoder.Options(channels=3), 64)
    maps = encoder(batch_of([0]).target)
    assert [tuple(level.shape) for level in maps] == [(1, 3, side, side) for side in (2, 4, 8, 16, 32, 64)]
