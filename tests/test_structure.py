"""The house rules that can be read off the source: who imports whom, and what `import minifcn` loads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import minifcn

ROOT = Path(minifcn.__file__).parent
ROOMS = [
    "geometry",
    "memory",
    "array",
    "debugging",
    "random",
    "threads",
    "kernels",
    "autograd",
    "functional",
    "nn",
    "optim",
    "models",
    "gradcheck",
    "weights",
    "data",
    "training",
    "lab",
    "cli",
    "__main__",
]
FILES = [p for p in sorted(ROOT.rglob("*.py")) if p != ROOT / "__init__.py"]


def imported(path: Path) -> set[str]:
    """The rooms that a file imports, type-checking blocks left out: they do not run."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} if node.module != "minifcn" else {f"minifcn.{a.name}" for a in node.names}
        elif isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
    return {n.split(".")[1] for n in names if n.startswith("minifcn.") and n != "minifcn.__version__"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_only_from_rooms_above(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert room in ROOMS, f"{room} has no place in the order of rooms"
    below = [r for r in imported(path) if r in ROOMS and ROOMS.index(r) > ROOMS.index(room)]
    assert not below, f"{path.relative_to(ROOT)} imports {below}, which come after {room}"


def test_import_loads_numpy_and_nothing_else() -> None:
    code = (
        "import sys, numpy; before = set(sys.modules); import minifcn; "
        "print(sorted({m.partition('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() in ("['minifcn']", "['minifcn', 'numpy']")  # parts of NumPy that NumPy loads late


def test_only_array_tries_cupy() -> None:
    users = [
        p.name for p in FILES if any(line.strip().startswith("import cupy") for line in p.read_text().splitlines())
    ]
    assert users == ["array.py"]


def test_public_names_exist_and_are_documented() -> None:
    for name in minifcn.__all__:
        assert getattr(minifcn, name).__doc__
    for name in minifcn.functional.__all__:
        assert getattr(minifcn.functional, name).__doc__, name
    for name in minifcn.nn.__all__:
        assert getattr(minifcn.nn, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        minifcn.nonsense  # noqa: B018
