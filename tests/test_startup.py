"""What a program pays for importing horinsight: nothing that it does not use, and torch is used late."""

import ast
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

import horinsight

HEAVY = ("torch", "timm", "torchvision", "matplotlib", "pandas", "scipy", "sklearn", "captum", "streamlit")
MEASURE = """
import json, sys, time
cpu = time.process_time()
rows = [row for row in open("/proc/self/status") if row.startswith("VmHWM:")] if sys.platform == "linux" else []
print(json.dumps({"cpu": cpu, "mb": int(rows[0].split()[1]) / 1024 if rows else 0.0, "modules": list(sys.modules)}))
"""


def measured(code: str) -> dict:
    """CPU seconds, peak megabytes and modules of a new process that ran some code."""
    done = subprocess.run([sys.executable, "-c", code + MEASURE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout.splitlines()[-1]), "output": done.stdout, "errors": done.stderr}


def imported(run: dict) -> set[str]:
    return set(HEAVY) & set(run["modules"])


@pytest.mark.parametrize(
    ("code", "seconds", "megabytes"),
    [
        ("import horinsight", 0.25, 80),
        ("from horinsight.cli.main import exit_status; exit_status(['--help'])", 0.4, 80),
    ],
    ids=["import", "help"],
)
def test_the_start_is_quick_and_small(code, seconds, megabytes):
    runs = [measured(code) for _ in range(3)]  # the least of some: other work shares the machine
    assert not imported(runs[0])
    assert min(run["cpu"] for run in runs) <= seconds
    assert min(run["mb"] for run in runs) <= megabytes


def test_help_results_and_figures_need_no_torch(tmp_path):
    spectrum = horinsight.interaction_spectrum(horinsight.GnConv(4, 2), torch.randn(1, 4, 6, 6), max_order=3)
    model = horinsight.create_model("hornet_test_iso")
    maps = horinsight.query_maps(model, torch.randn(1, 3, 96, 96), [[(1, 2)]])
    horinsight.save_result(spectrum, tmp_path / "spectrum.json")
    horinsight.save_result(maps, tmp_path / "maps.npz")
    reaches = horinsight.model_influence(model, torch.randn(1, 3, 96, 96), probes=2, scope="image")
    horinsight.save_result(reaches, tmp_path / "reach.npz")
    images, target = torch.rand(2, 3, 96, 96), torch.tensor([0, 1])
    given = {"rows": 2, "columns": 2, "steps": 2, "baselines": ["mean", "blur"]}
    faithful = horinsight.faithfulness(model, images, target, {"sum": lambda x, t: x.sum(1)}, **given)
    horinsight.save_result(faithful, tmp_path / "faithful.npz")
    folder = Path(horinsight.__file__).parent / "figures"
    figures = sorted(f"horinsight.figures.{path.stem}" for path in folder.glob("[!_]*.py"))
    run = measured(f"""
import sys
from horinsight.cli.main import LazyGroup, exit_status
for name in LazyGroup.COMMANDS:
    assert exit_status([name, "--help"]) == 0
assert "matplotlib" not in sys.modules
import {", ".join(figures)}
import horinsight.cli.ie_report, horinsight.cli.reach_report
import horinsight.attribution.faithfulness_options
from horinsight.attribution.faithfulness_report import faithfulness_report
from horinsight import FilterKernels, GnConvBound, MacCount, Adaptivity, Rollout, OrderGrowth, SizeGrowth, Estimate
spectrum = horinsight.load_result(horinsight.InteractionSpectrum, {str(tmp_path / "spectrum.json")!r})
maps = horinsight.load_result(horinsight.QueryMaps, {str(tmp_path / "maps.npz")!r})
reaches = horinsight.load_result(horinsight.ResultSet, {str(tmp_path / "reach.npz")!r})
faithful = horinsight.load_result(horinsight.Faithfulness, {str(tmp_path / "faithful.npz")!r})
assert "scipy" not in sys.modules
horinsight.save_figure(horinsight.draw_reach_maps(reaches, maps.pictures), {str(tmp_path / "reach.png")!r})
horinsight.save_figure(horinsight.draw_interaction_spectra({{"one": spectrum}}), {str(tmp_path / "spectrum.png")!r})
horinsight.save_figure(horinsight.draw_mixing_maps(maps), {str(tmp_path / "maps.png")!r})
""")
    assert imported(run) == {"matplotlib"}
    assert (tmp_path / "reach.png").stat().st_size > 1000
    assert (tmp_path / "spectrum.png").stat().st_size > 1000
    assert (tmp_path / "maps.png").stat().st_size > 1000


@pytest.mark.parametrize(
    "imports",
    [
        "import horinsight; import timm",
        "import timm; import horinsight",
        # a file of ours that imports timm is then not half imported while timm is told of the models
        "import horinsight.models.global_local_filter; import timm",
    ],
)
def test_timm_knows_the_models_in_either_order(imports):
    run = measured(f"""
import importlib, sys
{imports}
import horinsight.capture  # a module by the name of the public function that it holds
assert horinsight.capture is sys.modules["horinsight.capture"].capture
before = timm.list_models("hornet*")
importlib.reload(horinsight)
importlib.reload(timm)
assert timm.list_models("hornet*") == before
model = timm.create_model("hornet_tiny_7x7")
print("told:", type(model).__module__, sum(p.numel() for p in model.parameters()), "hornet_s_iso_gf" in before)
""")
    assert "told: horinsight.models.hornet 22409512 True" in run["output"]
    assert "Overwriting" not in run["errors"], "timm says so when a name is registered twice"


def test_every_public_name_is_there():
    names: dict[str, object] = {}
    exec("from horinsight import *", names)
    assert set(horinsight.__all__) == set(names) - {"__builtins__"}
    assert len(horinsight.__all__) >= 69
    assert {"__version__", "block_map_sizes", "count_and_bounds", "predictions"} <= set(names)
    assert set(horinsight.__all__) <= set(dir(horinsight))
    assert horinsight.__version__ == version("horinsight")
    with pytest.raises(AttributeError, match="no_such_name"):
        horinsight.no_such_name  # noqa: B018


def test_the_client_uses_every_result():
    client = ast.parse((Path(__file__).parent / "typing" / "client.py").read_text())
    used = {node.id for node in ast.walk(client) if isinstance(node, ast.Name)}
    public = {name: getattr(horinsight, name) for name in horinsight.__all__}
    results = {name for name, kind in public.items() if isinstance(kind, type) and issubclass(kind, horinsight.Result)}
    assert {"Adaptivity", "InteractionSpectrum", "MacCount", "Prediction"} < results
    assert results <= used


@pytest.mark.slow
def test_what_a_client_uses_is_typed(tmp_path):
    client = Path(__file__).parent / "typing" / "client.py"
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--cache-dir", str(tmp_path)]
    done = subprocess.run([*command, str(client)], capture_output=True, text=True, check=False, cwd=client.parents[2])
    assert done.returncode == 0, done.stdout
