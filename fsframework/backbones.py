"""timm's networks as parts of components."""

from typing import Any

from fsframework.errors import UserError


def timm_network(backbone: str, **arguments: Any) -> Any:
    """A network of timm's with random weights.

    Parameters
    ----------
    backbone:
        Its name in timm, as the option `backbone` has it.
    arguments:
        What `timm.create_model` is given besides.

    Raises
    ------
    UserError
        timm knows no such network.
    """
    import timm  # takes a second, which components without such a network need not wait

    if not timm.is_model(backbone):
        raise UserError(f"backbone: timm knows no {backbone}; see timm.list_models()")
    return timm.create_model(backbone, pretrained=False, **arguments)
