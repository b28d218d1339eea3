"""Generators of FaceShifter's ablations (arXiv:1912.13457, section 4.2) and of alternative modulation layers.

Each is `aad-generator` with one option fixed. Architecture and initial weights equal those with that option.
"""

from typing import Literal

from pydantic import Field

from fsf_faceshifter.aei_net import AadGenerator

FIXED = "Fixed by the generator's name."


class AddGenerator(AadGenerator):
    """Add, an ablation of the paper: `aad-generator` whose layers sum attributes and identity (integration: add)."""

    name = "add-generator"

    class Options(AadGenerator.Options):
        integration: Literal["add"] = Field("add", description=FIXED)


class CatGenerator(AadGenerator):
    """Cat, an ablation of the paper: `aad-generator` whose layers concatenate both (integration: cat)."""

    name = "cat-generator"

    class Options(AadGenerator.Options):
        integration: Literal["cat"] = Field("cat", description=FIXED)


class CompressedGenerator(AadGenerator):
    """Compressed, an ablation of the paper: `aad-generator` with the three coarsest attribute maps (att_levels: 3)."""

    name = "compressed-generator"

    class Options(AadGenerator.Options):
        att_levels: Literal[3] = Field(3, description=FIXED)


class AdainGenerator(AadGenerator):
    """AdaIN (arXiv:1703.06868): `aad-generator` with one gamma and beta for all pixels (integration: adain)."""

    name = "adain-generator"

    class Options(AadGenerator.Options):
        integration: Literal["adain"] = Field("adain", description=FIXED)


class SpadeGenerator(AadGenerator):
    """SPADE (arXiv:1903.07291): `aad-generator` whose layers use the attributes alone (integration: spade)."""

    name = "spade-generator"

    class Options(AadGenerator.Options):
        integration: Literal["spade"] = Field("spade", description=FIXED)
