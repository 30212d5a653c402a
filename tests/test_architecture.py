"""The layout of ARCHITECTURE: who may import whom, and what files are called."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "horinsight"
FOUNDATION = {"capture", "stats", "results"}
QUESTIONS = {"mixing", "interaction", "complexity"}
ALLOWED = {  # layer → the layers it may import besides itself
    **{name: set() for name in FOUNDATION},
    "models": FOUNDATION,
    "data": FOUNDATION,
    "mixers": {"models", "data"} | FOUNDATION,
    **{name: {"mixers", "models", "data"} | FOUNDATION for name in QUESTIONS},
    "attribution": {"mixing", "mixers", "models", "data"}
    | FOUNDATION,  # a question as well, which attributes with mixing weights
    "training": {"models", "data"} | FOUNDATION,
    "figures": {"mixers"} | QUESTIONS | FOUNDATION,
    "cli": {"figures", "training", "attribution", "mixers", "models", "data"} | QUESTIONS | FOUNDATION,
    "__main__": {"cli"},
    "__init__": {"figures", "attribution", "mixers", "models", "data"} | QUESTIONS | FOUNDATION,
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_downwards_only(path):
    own = layer(path)
    assert own in ALLOWED, f"{path}: a new top-level name needs a place in ARCHITECTURE"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "horinsight" or len(parts) < 2 or parts[1] == own:
            continue
        if (PACKAGE / parts[1]).exists() or (PACKAGE / f"{parts[1]}.py").exists():
            assert parts[1] in ALLOWED[own], f"{path.relative_to(ROOT)} ({own}) imports {name}"


def test_the_foundation_imports_nothing_of_ours():
    for name in FOUNDATION:
        path = PACKAGE / f"{name}.py"
        if path.exists():
            assert not any(found.startswith("horinsight") for found in imports(path))


def test_figures_never_import_torch():
    for path in (PACKAGE / "figures").glob("*.py"):
        assert not any(name.split(".")[0] == "torch" for name in imports(path)), path


def test_only_capture_registers_hooks():
    for path in FILES:
        if path.name != "capture.py":
            assert "register_forward" not in path.read_text(), path
            assert "register_full_backward" not in path.read_text(), path


def test_weights_are_loaded_safely():
    for path in [*FILES, *(ROOT / "experiments").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                flags = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert flags.get("weights_only") == "True", path


def test_basenames_are_unique_and_say_something():
    names = [path.name for path in FILES if path.name != "__init__.py"]
    assert len(names) == len(set(names)), sorted(name for name in set(names) if names.count(name) > 1)
    assert not {"utils.py", "helpers.py", "common.py", "base.py", "core.py"} & set(names)


def test_print_only_in_cli():
    for path in FILES:
        if layer(path) == "cli":
            continue
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        assert not any(isinstance(call.func, ast.Name) and call.func.id == "print" for call in calls), path
