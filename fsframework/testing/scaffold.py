"""`fsf plugins new`: create a package with components of the given kinds, tests, and a recipe that uses them.

The files are copies of plugins/fsf_template with the new names. The originals are linted, typed and tested like all
other code.
"""

import importlib.util
import keyword
import re
import sys
from collections.abc import Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from fsframework.core.errors import UserError
from fsframework.core.registry import KINDS, SINGULAR
from fsframework.utils import yaml
from fsframework.utils.files import making

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
IGNORED = ("__pycache__/", "*.egg-info/", "build/", "dist/", "runs/", ".venv/")  # entries of .gitignore
WIDTH = 120  # maximum line length
PREFIX = "fsf-"  # prefix of most distributions, left out of component names


def check_name(name: str) -> None:
    """Raise UserError unless a name is lower-case words joined by dashes and no module of that name exists."""
    module = name.replace("-", "_")
    if not NAME.fullmatch(name) or keyword.iskeyword(module):
        raise UserError(f"{name}: is no valid plugin name; write lower-case words joined by dashes, such as fsf-demo")
    if module in sys.stdlib_module_names or importlib.util.find_spec(module) is not None:
        raise UserError(f"{name}: a module {module} is already installed; choose another name")


def write(name: str, kinds: Sequence[str], folder: Path) -> list[str]:
    """Write a new plugin package.

    Parameters
    ----------
    name:
        The distribution's name: lower-case words joined by dashes.
    kinds:
        The kinds of its components, such as ["losses", "generators"].
    folder:
        The output folder; it must not exist, or be empty.

    Returns
    -------
    The files, as paths inside the folder.

    Raises
    ------
    UserError
        The folder is not empty, or the name is invalid.
    """
    check_name(name)
    words = name.removeprefix(PREFIX)
    names = {
        "fsf_template": name.replace("-", "_"),
        "Template": "".join(word.capitalize() for word in words.split("-")),
        "template": words,
    }
    template = Path(str(resources.files("fsf_template")))
    singular = [SINGULAR[kind].replace(" ", "_") for kind in kinds]
    files = {"pyproject.toml": template / "pyproject.txt", "README.md": template / "readme.txt"}
    files |= {f"fsf_template/{noun}.py": template / f"{noun}.py" for noun in singular}
    files |= {f"tests/test_{noun}.py": template / "tests" / f"test_{noun}.py" for noun in singular}
    texts = {path: file.read_text(encoding="utf-8") for path, file in files.items()}
    texts |= {"fsf_template/__init__.py": _hooks(kinds), "fsf_template/py.typed": "", "recipe.yaml": _recipe(kinds)}
    texts[".gitignore"] = "".join(f"{name}\n" for name in IGNORED)
    with making(folder) as temporary:
        for path, text in texts.items():
            file = temporary / _renamed(path, names)
            file.parent.mkdir(exist_ok=True)
            substitutions = {
                "DISTRIBUTION": name,
                "KINDS": _listed(kinds),
                "FRAMEWORK": metadata.version("fsframework"),
            }
            text = _sorted_imports(_renamed(text.replace("COMPONENTS", _table(kinds)), names | substitutions))
            file.write_text(text, encoding="utf-8")
    return sorted(_renamed(path, names) for path in texts)


def _renamed(text: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        text = text.replace(old, new)
    return text


def _class(kind: str) -> str:
    return "Template" + "".join(word.capitalize() for word in SINGULAR[kind].split(" "))


def _use(kind: str, **options: Any) -> dict[str, Any]:
    return {"use": f"template-{SINGULAR[kind].replace(' ', '-')}", **options}


def _listed(kinds: Sequence[str]) -> str:
    nouns = [f"{'an' if SINGULAR[kind][0] in 'aeiou' else 'a'} {SINGULAR[kind]}" for kind in kinds]
    return nouns[0] if len(nouns) == 1 else f"{', '.join(nouns[:-1])} and {nouns[-1]}"


def _table(kinds: Sequence[str]) -> str:
    rows = [f"| {SINGULAR[kind]} | `{_use(kind)['use']}` | `fsf_template/{_file(kind)}` |" for kind in kinds]
    return "\n".join(["| kind | name | file |", "|---|---|---|", *rows])


def _file(kind: str) -> str:
    return f"{SINGULAR[kind].replace(' ', '_')}.py"


def _hooks(kinds: Sequence[str]) -> str:
    """Return the text of the package's __init__.py."""
    imports = [f"from fsf_template.{_file(kind).removesuffix('.py')} import {_class(kind)}" for kind in kinds]
    bases = sorted(KINDS[kind].__name__ for kind in kinds)
    bases.append("hookimpl")
    parts = ['"""A plugin for fsframework."""\n', *imports]
    statement = "from fsframework import"
    one_line = f"{statement} {', '.join(bases)}"
    parts.append(one_line if len(one_line) <= WIDTH else f"{statement} (\n    {f',{chr(10)}    '.join(bases)},\n)")
    for kind in kinds:
        head = f"def register_{kind.replace('-', '_')}() -> list[type[{KINDS[kind].__name__}]]:"
        parts.append(f"\n\n@hookimpl\n{head}\n    return [{_class(kind)}]")
    return "\n".join(parts) + "\n"


def _recipe(kinds: Sequence[str]) -> str:
    """Return the text of a recipe that uses every kind, with built-in components for the rest."""
    components = {kind: _use(kind) for kind in kinds}
    judge = {"use": "dlib-resnet"}
    networks = {
        "identity": components.get("identity-encoders", judge),
        "attributes": components.get("attribute-encoders", {"use": "aei-attributes", "width": 0.25}),
        "generator": components.get("generators", {"use": "aad-generator", "width": 0.125}),
    }
    losses = [{"use": "attribute", "weight": 10}, {"use": "identity", "weight": 5}]
    losses.append({"use": "reconstruction", "weight": 10})
    if "losses" in components:
        losses.append({**components["losses"], "weight": 1})
    training = {"optimizer": {"lr": 4.0e-4}, "steps": 60, "batch_size": 8}
    stages = [{"name": "swap", "train": ["attributes", "generator"], "losses": losses, **training}]
    if "refiners" in components:
        networks["refiner"] = components["refiners"]
        stages.append({"name": "refine", "train": ["refiner"], "losses": [{"use": "reconstruction"}], **training})
    benchmarks = [{"use": "id-retrieval", "judge": judge}, {"use": "pose-error"}, {"use": "reconstruction"}]
    if "estimators" in components:
        benchmarks[1] = {"use": "pose-error", "estimator": components["estimators"]}
    if "benchmarks" in components:
        benchmarks.append(components["benchmarks"])
    recipe: dict[str, Any] = {"name": "template", "requires": ["DISTRIBUTION>=0.1"], "size": 64}
    if "detectors" in components:
        recipe["detector"] = components["detectors"]
    recipe |= {"data": components.get("datasets", {"use": "orl"}), "networks": networks, "stages": stages}
    recipe["evaluation"] = {"pairs": 40, "benchmarks": benchmarks}
    head = "# A short training with the components of DISTRIBUTION, too short to be good.\n#\n#   fsf run recipe.yaml\n"
    return head + yaml.dump_yaml(recipe)


STATEMENT = r"from (\S+) import (?:\([^)]*\)|.*)\n"


def _sorted_imports(text: str) -> str:
    """Return the text with its last import block sorted, because the new name may change the order."""
    blocks = list(re.finditer(rf"^(?:{STATEMENT})+", text, re.MULTILINE))
    if not blocks:
        return text
    start, end = blocks[-1].span()
    statements = sorted(re.finditer(STATEMENT, text[start:end]), key=lambda statement: statement[1])
    return text[:start] + "".join(statement[0] for statement in statements) + text[end:]
