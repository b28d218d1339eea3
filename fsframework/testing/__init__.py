"""Contract checks for plugin authors, sample faces and small networks for tests."""

from typing import TYPE_CHECKING

from fsframework.utils.lazy import attach

if TYPE_CHECKING:  # for type checkers and editors; `attach` reads the names from here
    __all__: list[str]
    from fsframework.data.samples import LANDMARKS as LANDMARKS
    from fsframework.data.samples import FewFaces as FewFaces
    from fsframework.data.samples import portrait as portrait
    from fsframework.testing.contract import check_attribute_encoder as check_attribute_encoder
    from fsframework.testing.contract import check_benchmark as check_benchmark
    from fsframework.testing.contract import check_component as check_component
    from fsframework.testing.contract import check_dataset as check_dataset
    from fsframework.testing.contract import check_detector as check_detector
    from fsframework.testing.contract import check_estimator as check_estimator
    from fsframework.testing.contract import check_generator as check_generator
    from fsframework.testing.contract import check_identity_encoder as check_identity_encoder
    from fsframework.testing.contract import check_loss as check_loss
    from fsframework.testing.contract import check_refiner as check_refiner
    from fsframework.testing.samples import SmallAttributes as SmallAttributes
    from fsframework.testing.samples import SmallGenerator as SmallGenerator
    from fsframework.testing.samples import SmallIdentity as SmallIdentity
    from fsframework.testing.samples import batch_of as batch_of
    from fsframework.testing.samples import ready as ready
    from fsframework.testing.subject import ContractError as ContractError
else:
    __getattr__, __dir__, __all__ = attach(__name__, __file__)
