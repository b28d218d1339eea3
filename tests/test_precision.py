"""What networks compute in: float32, or bfloat16 where the device has it."""

from collections.abc import Callable

import pytest
import torch

from fsframework.ops import precision
from fsframework.ops.precision import Precision, wants_bf16


@pytest.mark.parametrize(
    ("asked", "device", "able", "wanted", "noted"),
    [
        ("auto", "cpu", True, True, False),
        ("auto", "cuda", True, True, False),
        ("auto", "cuda", False, False, False),
        ("bf16", "cpu", True, True, False),
        ("bf16", "cpu", False, True, True),
        ("fp32", "cuda", True, False, False),
    ],
)
def test_what_a_precision_means(
    asked: Precision,
    device: str,
    able: bool,
    wanted: bool,
    noted: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    check_message: Callable[..., None],
) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda device: able)
    assert wants_bf16(asked, torch.device(device), "only") == wanted
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == noted
    for line in lines:
        assert line.startswith("note: only: ")
        check_message(line)
