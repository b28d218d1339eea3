"""Reading YAML: plain values, lines, and everything that is refused."""

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fsframework.utils.yaml import MAX_BYTES, dump_yaml, format_inline, load_yaml, parse_yaml


def write(folder: Path, text: str) -> Path:
    file = folder / "file.yaml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("4.0e-4", 4e-4),
        ("-.5", -0.5),
        ("1_000", 1000),
        ("007", 7),
        ("0x10", 16),
        ("true", True),
        ("no", "no"),
        ("'true'", "true"),
        ("'1'", "1"),
        ("~", None),
        ("", None),
        (".inf", ".inf"),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("[1, {a: b}]", [1, {"a": "b"}]),
        ("<<: 1", {"<<": 1}),
    ],
)
def test_plain_values(text: str, value: object) -> None:
    found = parse_yaml(text, "x")[0]
    assert found == value and type(found) is type(value)


def test_lines_of_values(tmp_path: Path) -> None:
    data, marks = load_yaml(write(tmp_path, "a: 1\nb:\n  - c: |\n      text\n    d: [1,\n      2]\n"))
    assert data == {"a": 1, "b": [{"c": "text\n", "d": [1, 2]}]}
    assert marks[("a",)] == 1
    assert marks["b", 0, "d"] == 5
    assert marks["b", 0, "d", 1] == 6


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: 2\na: 3", 3),
        ("a:\n  b: 1\n  b: 2", 3),
        ("a: &x 1\nb: *x", 1),
        ("b: *x", 1),
        ("\na: !!python/object/apply:os.system ['touch sentinel']", 2),
        ("a: !!str x", 1),
        ("a: ! x", 1),
        pytest.param("[" * 10_000, 1, id="nested"),
        ("1: x", 1),
        ("? [a]\n: x", 1),
        ("a: 1e999", 1),
        ("a: b: c", 1),
        ("a: 1\n--- 2", 2),
        ("a: '", 1),
    ],
)
def test_refused(tmp_path: Path, text: str, line: int, expect_error: Callable[..., Any]) -> None:
    file = write(tmp_path, text)
    with expect_error(f"file.yaml: line {line}: "):
        load_yaml(file)
    assert not Path("sentinel").exists()


def test_alias_bomb_is_refused_at_once(tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    lines = ["a: &a [lol,lol,lol,lol,lol,lol,lol,lol,lol]"]  # 9 to the power of 9 texts
    lines += [f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]" for before, name in pairwise("abcdefghi")]
    file = write(tmp_path, "\n".join(lines))
    assert file.stat().st_size < 396
    start = time.process_time()
    with expect_error("file.yaml: line 1: "):
        load_yaml(file)
    assert time.process_time() - start < 0.1  # of the processor, so that a busy machine does not matter


def test_files_that_are_no_text(tmp_path: Path, expect_error: Callable[..., Any]) -> None:
    file = tmp_path / "file.yaml"
    with expect_error("file.yaml"):
        load_yaml(file)
    with expect_error(tmp_path.name):
        load_yaml(tmp_path)
    file.write_bytes(b"name: \xff\xfe")
    with expect_error("file.yaml: byte 6"):
        load_yaml(file)
    file.write_bytes(b"name: \x00")
    with expect_error("file.yaml"):
        load_yaml(file)
    file.write_bytes(b"a" * (MAX_BYTES + 1))
    with expect_error("file.yaml"):
        load_yaml(file)


def test_dump_is_read_back() -> None:
    shared = [1, 2]
    words = ["1e-4", "007", "no", "0o7", "1_0", "~", "", "null", "1:30", "=", "<<", "a: b", "é", "*a", "!x", "- ", "#"]
    value = {
        "texts": words,
        "numbers": [1e-4, 1e300, -3, 0, 0.1],
        "rest": [None, True, [], {}],
        "b": shared,
        "a": shared,
    }
    text = dump_yaml(value)
    assert parse_yaml(text, "x")[0] == value
    assert text.index("\nb:") < text.index("\na:")  # keys keep their order


def test_inline() -> None:
    assert format_inline([0.0, 0.999]) == "[0.0, 0.999]"
    assert format_inline("x" * 200).endswith("...") and len(format_inline("x" * 200)) == 60
    assert format_inline(None) == "null"
