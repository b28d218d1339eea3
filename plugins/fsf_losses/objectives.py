"""Adversarial objectives of a generator and of a discriminator, on logits of any shape."""

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

Objective = Literal["hinge", "relativistic"]
DESCRIPTION = (
    "hinge (Lim and Ye, arXiv:1705.02894), or relativistic pairing: softplus of the difference of a pair's logits "
    "(Jolicoeur-Martineau, arXiv:1807.00734; R3GAN: Huang et al., arXiv:2501.05441). There, a pair is a swap and its "
    "ground truth."
)


def generator_objective(objective: Objective, fake: Tensor, real: Tensor | None) -> Tensor:
    """Return the generator's loss, a scalar, of the logits of fake and real images; hinge ignores `real`."""
    if objective == "hinge":
        return -fake.mean()
    assert real is not None
    return F.softplus(real - fake).mean()


def discriminator_objective(objective: Objective, fake: Tensor, real: Tensor) -> Tensor:
    """Return the discriminator's loss, a scalar, of the logits of fake and real images."""
    if objective == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    return F.softplus(fake - real).mean()
