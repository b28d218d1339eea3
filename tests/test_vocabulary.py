"""Terms of CONTRIBUTING.md: code and documents avoid the words of the table's last column; its tree is the folders'."""

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ROWS = [row.split("|")[1:-1] for row in TEXT.partition("## Terms")[2].partition("\n## ")[0].splitlines() if "|" in row]
AVOIDED = {word.strip() for *_, words in ROWS[2:] for word in words.split(",") if word.strip()}
CODE = [
    file
    for folder in ("fsframework", "plugins", "benchmarks/fsf_benchmarks", "benchmarks/scripts")
    for file in sorted((ROOT / folder).rglob("*.py"))
    if file.name not in ("renamed.py", "convert_model.py")  # they list earlier names
]
DOCUMENTS = [ROOT / "README.md", *sorted(ROOT.glob("plugins/*.md")), *sorted(ROOT.glob("docs/*.md"))]


def test_terms_are_listed() -> None:
    assert len(ROWS) > 20 and {"register", "Converter"} <= AVOIDED


def names(source: str) -> set[str]:
    """Return the identifiers of Python source."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.string for token in tokens if token.type == tokenize.NAME}


@pytest.mark.parametrize("file", CODE, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_code_uses_the_terms(file: Path) -> None:
    capitalised = {word for word in AVOIDED if word != word.lower()}
    assert not names(file.read_text(encoding="utf-8")) & capitalised


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_documents_use_the_terms(file: Path) -> None:
    code = " ".join(re.findall(r"`([^`\n]+)`", file.read_text(encoding="utf-8")))
    assert not {word for word in AVOIDED if re.search(rf"\b{word}\b", code)}


def tree() -> str:
    """Return the packages and modules of the framework, as `tree -L 2` shows them."""
    lines = ["fsframework"]
    for path in sorted((ROOT / "fsframework").iterdir(), key=lambda path: (path.is_file(), path.name)):
        if path.is_dir() and (path / "__init__.py").is_file():
            inner = [each for each in sorted(path.iterdir()) if each.name not in ("__init__.py", "__pycache__")]
            names = [f"{each.name}/" if each.is_dir() else each.name for each in inner]
            lines += [f"├── {path.name}", *wrapped(names)]
        elif path.suffix == ".py":
            lines.append(f"├── {path.name}")
    return "\n".join(lines)


def wrapped(names: list[str]) -> list[str]:
    """Return names in lines of at most 110 characters."""
    lines, line = [], "│   "
    for name in names:
        if len(line) + len(name) > 110:
            lines.append(line.rstrip())
            line = "│   "
        line += f"{name}  "
    return [*lines, line.rstrip()]


def test_the_tree_is_that_of_the_folders() -> None:
    assert tree() in TEXT, "python tests/test_vocabulary.py prints it"


if __name__ == "__main__":
    print(tree())
