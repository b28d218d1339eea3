"""Fixtures that more than one test file uses."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """A folder with LFW and weights, beside the checkout or named by FSF_SHARED; without it the test is skipped."""
    folder = Path(os.environ.get("FSF_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"needs the folder {folder} with data/lfw and weights")
    return folder
