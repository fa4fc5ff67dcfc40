"""Nothing that comes from outside can run code: no pickle, no eval, in the source of the package."""

import ast
from collections.abc import Iterator

import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "serve_app"
FORBIDDEN_MODULES = {"cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "shelve"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "os.system", "os.popen", "runpy.run_path", "yaml.unsafe_load"}
# Whose result depends on how they are called.
SAFE_ONLY_WITH = {
    "torch.load": ("weights_only", True),
    "numpy.load": ("allow_pickle", False),
    "yaml.load": ("Loader", None),
    "yaml.load_all": ("Loader", None),
}
ALLOWED = {
    # Whether an exception of this same process survives a pipe: multiprocessing pickles it anyway.
    ("bench/isolated.py", "pickle.loads"),
    ("bench/isolated.py", "pickle.dumps"),
}


def found(source: str) -> Iterator[str]:
    """Names of what could run code that is not the source's own."""
    tree = ast.parse(source)
    names = dict(_imported(tree))
    yield from (name for name in names.values() if name.partition(".")[0] in FORBIDDEN_MODULES)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = _full_name(node.func, names)
            if _is_unsafe(name, node):
                yield name


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Each name, and what it stands for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((each.asname or each.name, each.name) for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((each.asname or each.name, f"{node.module}.{each.name}") for each in node.names)


def _full_name(function: ast.expr, names: dict[str, str]) -> str:
    first, dot, rest = ast.unparse(function).partition(".")
    return names.get(first, first) + dot + rest


def _is_unsafe(name: str, call: ast.Call) -> bool:
    if name in FORBIDDEN_CALLS or name.startswith(("pickle.", "_pickle.")):
        return True
    if name not in SAFE_ONLY_WITH:
        return False
    argument, value = SAFE_ONLY_WITH[name]
    given = next((each.value for each in call.keywords if each.arg == argument), None)
    if value is None:
        return given is None or "Safe" not in ast.unparse(given)
    return not (isinstance(given, ast.Constant) and given.value is value)


def test_the_package_runs_no_code_of_others() -> None:
    everything = {
        (str(path.relative_to(PACKAGE)), name)
        for path in sorted(PACKAGE.rglob("*.py"))
        for name in found(path.read_text())
    }
    assert everything == ALLOWED


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.loads(b'')",
        "import pickle as p\np.Unpickler(f)",
        "from pickle import loads as harmless\nharmless(b'')",
        "import joblib",
        "from cloudpickle import dumps",
        "import torch\ntorch.load(p)",
        "import torch\ntorch.load(p, weights_only=False)",
        "import torch\ntorch.load(p, weights_only=choice)",
        "import numpy as np\nnp.load(p)",
        "import numpy as np\nnp.load(p, allow_pickle=True)",
        "import yaml\nyaml.load(f)",
        "import yaml\nyaml.load(f, Loader=yaml.Loader)",
        "eval('1')",
    ],
)
def test_what_could_is_noticed(source: str) -> None:
    assert list(found(source))


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load(p, map_location='cpu', weights_only=True)",
        "import yaml\nyaml.safe_load(f)",
        "import yaml\nyaml.load(f, Loader=yaml.CSafeLoader)",
        "import numpy as np\nnp.load(p, allow_pickle=False)",
        "import pickle\ntry: pass\nexcept pickle.UnpicklingError: pass",
        "model.eval()",
    ],
)
def test_what_could_not_is_fine(source: str) -> None:
    assert list(found(source)) == []
