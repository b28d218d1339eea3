"""Protocols: shipped ones are right, they take the place of a recipe's evaluation, and results name them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fsframework.core.errors import UserError
from fsframework.evaluation.evaluate import bench
from fsframework.evaluation.protocol import Protocol, shipped

TEXT = """
name: tiny
version: 3
cite: Three pairs of ORL.
evaluation:
  data: {use: orl}
  pairs: 3
  benchmarks: [{use: reconstruction}]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(TEXT)
    return file


@pytest.mark.parametrize("name", shipped())
def test_shipped_protocols(name: str) -> None:
    protocol = Protocol.load(name)
    assert protocol.name == name and protocol.cite.strip().endswith(".")
    assert "judge" in json.dumps(protocol.model_dump(mode="json"))


def test_a_digest_is_of_what_is_said(file: Path) -> None:
    before = Protocol.load(str(file)).digest()
    file.write_text("# a remark\n" + TEXT.replace("pairs: 3", "pairs:   3"))
    assert Protocol.load(str(file)).digest() == before
    file.write_text(TEXT.replace("pairs: 3", "pairs: 4"))
    assert Protocol.load(str(file)).digest() != before


@pytest.mark.parametrize(
    "old, new, place",
    [
        pytest.param("version: 3", "version: 0", "line 3: version: ", id="version"),
        pytest.param("cite: Three pairs of ORL.\n", "", "cite: ", id="missing key"),
        pytest.param("pairs: 3", "piars: 3", "line 7: evaluation.piars: ", id="unknown key"),
        pytest.param("reconstruction", "reconstructoin", "line 8: evaluation.benchmarks.0: ", id="unknown component"),
    ],
)
def test_mistakes_are_lines(file: Path, old: str, new: str, place: str, check_message: Callable[..., None]) -> None:
    file.write_text(TEXT.replace(old, new))
    with pytest.raises(UserError) as caught:
        Protocol.load(str(file))
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{file}: ") for line in lines)
    assert any(line.startswith(f"{file}: {place}") for line in lines)
    check_message(str(caught.value))


def test_unknown_protocol(expect_error: Callable[..., Any]) -> None:
    assert "orl" in shipped()
    with expect_error("nothing: ", hide={", ".join(shipped()): "NAMES"}):
        Protocol.load("nothing")


def test_results_name_the_protocol_the_weights_and_the_costs(
    file: Path, tmp_path: Path, untrained_run: Callable[..., Any]
) -> None:
    run = untrained_run(tmp_path / "run")
    protocol = Protocol.load(str(file))
    found = bench(run.path, [], ["evaluation.pairs=2"], "cpu", protocol=protocol).to_json()
    assert found["pairs"] == 2 and list(found["benchmarks"]) == ["reconstruction"]
    assert found["protocol"] == {
        "name": "tiny",
        "version": 3,
        "sha256": protocol.digest(),
        "cite": "Three pairs of ORL.",
        "changed": ["evaluation.pairs=2"],
    }
    assert found["weights"]["reconstruction"] is None and len(found["weights"]["method"]) == 64
    assert found["cost"]["seconds_a_swap"] > 0 and 0.1 < found["cost"]["peak_memory_gb"] < 1000
    assert found["why"]["reconstruction"]["target_fails_too"] == 0
    again = bench(run.path, [], ["evaluation.pairs=2"], "cpu", protocol=protocol).to_json()
    del found["cost"], again["cost"]
    assert found == again


def test_other_weights_have_another_digest(tmp_path: Path, untrained_run: Callable[..., Any], file: Path) -> None:
    import torch

    from fsframework.utils.weights import digest

    layer = torch.nn.Linear(2, 2)
    before = digest(layer)
    assert digest(layer.half()) != before or torch.equal(layer.weight, layer.weight.half().float())
    with torch.no_grad():
        layer.weight[0, 0] += 1
    assert digest(layer) != before and digest(torch.nn.Identity()) is None
