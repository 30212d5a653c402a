"""The layout of ARCHITECTURE: who may import whom, and what files are called."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "horinsight"
MODULES = {
    "capture",
    "hooks",
    "lending",
    "batches",
    "torch_private",
    "pauses",
}  # what touches a foreign module; all that needs torch down here
FOUNDATION = {
    "stats",
    "results",
    "options",
    "report",
    "result_fields",
    "result_files",
    "whole_file",
    "cancellation",
    "memory_budget",
} | MODULES
QUESTIONS = {"mixing", "interaction", "complexity"}
# what a foreign network says of itself: asked by models, data and questions
GROUND = {"description", "dry_run"} | FOUNDATION
ALLOWED = {  # layer → the layers it may import besides itself
    **{name: set() for name in FOUNDATION},
    "capture": {"hooks", "lending", "batches"},  # the foundation may import itself, downwards
    "batches": {"cancellation"},
    "hooks": {"lending"},
    "pauses": {"cancellation"},
    "result_files": {"whole_file"},
    "results": {"result_fields", "result_files"},
    "report": {"result_files"},
    "stats": {"results"},
    "dry_run": FOUNDATION,
    "description": {"dry_run"} | FOUNDATION,
    "models": GROUND,
    "data": GROUND,
    "mixers": {"models", "data"} | GROUND,
    "operators": {"mixers", "models"} | GROUND,
    **{name: {"operators", "mixers", "models", "data"} | GROUND for name in QUESTIONS},
    # a question as well, which attributes with what two others find: mixing weights, influence and rollouts, and the
    # nested derivatives and groups of neighbours of which interactions by place are made; a block is an operator there
    "attribution": {"mixing", "interaction", "operators", "mixers", "models", "data"} | GROUND,
    "training": {"models", "data"} | GROUND,
    # a question of many pictures: it asks those above
    "survey": {"mixers", "models", "data", "mixing", "interaction"} | GROUND,
    "figures": {"survey"} | QUESTIONS | FOUNDATION,
    "cli": {"survey", "figures", "training", "attribution", "operators", "mixers", "models", "data"}
    | QUESTIONS
    | FOUNDATION,
    "viewer": {"survey", "figures", "training", "attribution", "operators", "mixers", "models", "data"}
    | QUESTIONS
    | FOUNDATION,
    "__main__": {"cli"},
    "__init__": {"survey", "figures", "attribution", "operators", "mixers", "models", "data"} | QUESTIONS | FOUNDATION,
}
MAX_ARGUMENTS, MAX_LINES = 8, 60
CONSTRUCTORS = {"models/hornet.py:HorNet.__init__", "models/hornet_isotropic.py:IsotropicHorNet.__init__"}
FILES = sorted(PACKAGE.rglob("*.py"))
STUB = PACKAGE / "__init__.pyi"


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == int(path == STUB), f"{path}: relative import"  # as `lazy_loader` reads a stub
            module = f"horinsight.{node.module}" if node.level else node.module
            found.add(module)
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".pyi").removesuffix(".py")


@pytest.mark.parametrize("path", [*FILES, STUB], ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_downwards_only(path):
    own = layer(path)
    assert own in ALLOWED, f"{path}: a new top-level name needs a place in ARCHITECTURE"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "horinsight" or len(parts) < 2 or parts[1] == own:
            continue
        if (PACKAGE / parts[1]).exists() or (PACKAGE / f"{parts[1]}.py").exists():
            assert parts[1] in ALLOWED[own], f"{path.relative_to(ROOT)} ({own}) imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_public_dataclasses_are_frozen(path):
    """Results are values: nobody changes one that somebody else holds."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            made = [ast.unparse(decorator) for decorator in node.decorator_list]
            assert not any(name.startswith("dataclass") and "frozen=True" not in name for name in made), node.name


def test_the_foundation_needs_no_torch():
    for name in FOUNDATION - MODULES:
        assert not any(found.split(".")[0] == "torch" for found in imports(PACKAGE / f"{name}.py")), name


def test_figures_never_import_torch():
    for path in (PACKAGE / "figures").glob("*.py"):  # nor does what they import: tests/test_startup.py
        assert not any(name.split(".")[0] == "torch" for name in imports(path)), path


def test_only_its_script_imports_the_viewer():
    for path in [*FILES, STUB]:
        if layer(path) != "viewer":
            assert not any(name.startswith("horinsight.viewer") for name in imports(path)), path


def test_hooks_are_registered_in_one_file():
    for path in FILES:
        called = {
            ast.unparse(node.func).split(".")[-1]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
        }
        hooks = ("register_forward", "register_full_backward", "register_module_f")
        registers = {name for name in called if name.startswith(hooks)}
        assert path.name == "hooks.py" or not registers, path


def test_private_names_of_others_stand_in_one_file_each():
    """What we expect of them: tests/test_private_names.py."""
    expected = {
        "models/timm_private.py",
        "torch_private.py",
        "attribution/captum_private.py",
    }
    found = set()
    for path in FILES:
        nodes = ast.walk(ast.parse(path.read_text()))
        for name in imports(path) | {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}:
            package, *parts = name.split(".")
            foreign = package in {"torch", "timm", "torchvision", "captum", "sklearn"}
            if foreign and name.replace(".", "").isidentifier() and any(p.startswith("_") for p in parts):
                found.add(str(path.relative_to(PACKAGE)))
    assert found == expected


def test_what_registers_models_is_never_half_imported():
    """timm's import runs it (see `horinsight`): outside of `models` none of it may be what imports timm first."""
    files = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}
    registering = (
        "hornet",
        "hornet_isotropic",
        "ablations",
        "order_ablation",
        "separable_net",
        "convnext_isotropic",
    )
    waiting = [f"horinsight.models.{name}" for name in registering]
    seen = set(waiting)
    while waiting:
        name = waiting.pop()
        found = imports(files[name])
        assert name.startswith("horinsight.models.") or not any(one.split(".")[0] == "timm" for one in found), name
        fresh = {one for one in found if one in files} - seen
        seen |= fresh
        waiting.extend(fresh)
    assert len(seen) > 3


def functions(tree: ast.AST, outer: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every function of a file by its name, with those of classes and functions around it."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            yield f"{outer}{node.name}", node
        named = isinstance(node, ast.FunctionDef | ast.ClassDef)
        yield from functions(node, f"{outer}{node.name}." if named else outer)


def size(function: ast.FunctionDef) -> tuple[int, int]:
    """Arguments without `self`, and lines without the docstring."""
    given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    said = isinstance(function.body[0], ast.Expr) and isinstance(function.body[0].value, ast.Constant)
    body = function.body[1:] if said else function.body
    lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
    return sum(argument.arg not in ("self", "cls") for argument in given), lines


def test_functions_are_small():
    sizes = {
        f"{path.relative_to(PACKAGE)}:{name}": size(function)
        for path in FILES
        for name, function in functions(ast.parse(path.read_text()))
    }
    large = {name for name, (arguments, lines) in sizes.items() if arguments > MAX_ARGUMENTS or lines > MAX_LINES}
    assert large <= CONSTRUCTORS, "more than 8 arguments or 60 lines"
    assert all(sizes[name][1] <= MAX_LINES for name in CONSTRUCTORS)


def test_a_wheel_holds_every_file():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["horinsight"]
    for path in PACKAGE.rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            assert any(path.relative_to(PACKAGE).match(pattern) for pattern in patterns), path


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
    tests = [path.name for path in (ROOT / "tests").rglob("test_*.py")]  # pytest collects only one of a name
    assert len(tests) == len(set(tests)), sorted(name for name in set(tests) if tests.count(name) > 1)


def test_print_only_in_cli():
    for path in FILES:
        if layer(path) == "cli":
            continue
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        assert not any(isinstance(call.func, ast.Name) and call.func.id == "print" for call in calls), path
