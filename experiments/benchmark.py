"""Speed as ratios, both sides measured alternately in one run. `python experiments/benchmark.py --help`.

Absolute times depend on the machine and on what else it does; a ratio of medians of alternating runs much less. The
ratios that we keep, with their machines, are in experiments/README.md.
"""

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path

import torch
from plain_hornet import PLAIN_MODELS, plain_model

from horinsight import GnConv, create_model, influence, model_interaction_spectra, model_mixing_weights
from horinsight.capture import Call, capture
from horinsight.interaction.gnconv_effect import closed_form_of
from horinsight.interaction.nested_derivative import mixed_derivatives
from horinsight.models.gnconv import channel_product


def machine() -> str:
    """Processor, threads and torch, in one line."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        rows = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((row.split(":")[1].strip() for row in rows if row.startswith("model name")), name)
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{name} ({capability}), {torch.get_num_threads()} of {os.cpu_count()} cores{gpu}, torch {torch.__version__}"


TURN_SECONDS = 0.1


def alternate(sides: dict[str, Callable[[], object]], repeats: int, device: str) -> dict[str, list[float]]:
    """Seconds a run of each side, taken in turn: A B A B …, after two turns of each to warm up.

    A turn repeats a side until it has taken `TURN_SECONDS`, so that what takes milliseconds is not measured with the
    caches and sleeping threads that a long run of the other side leaves behind.
    """

    def timed(side: Callable[[], object]) -> float:
        start, runs = time.perf_counter(), 0
        while True:
            side()
            if device == "cuda":
                torch.cuda.synchronize()
            runs += 1
            taken = time.perf_counter() - start
            if taken >= TURN_SECONDS:
                return taken / runs

    for side in list(sides.values()) * 2:
        timed(side)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            seconds[name].append(timed(side))
    return seconds


def report(what: str, seconds: dict[str, list[float]], against: str) -> None:
    """Medians, and by how much each side is faster than `against`, with the quartiles of the run-by-run ratio."""
    for name, runs in seconds.items():
        if name == against:
            continue
        ratios = [a / b for a, b in zip(seconds[against], runs, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(
            f"{what:34} {name} {statistics.median(runs) * 1e3:8.1f} ms, {against} "
            f"{statistics.median(seconds[against]) * 1e3:8.1f} ms: {middle:5.2f} x as fast ({low:.2f} to {high:.2f})"
        )


def needed_work(model: torch.nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """The matrix products, convolutions and GELUs of one forward pass alone, as fast as torch computes each.

    No layout of the memory saves any of them, so that a forward pass in float32 takes at least as long: biases, norms,
    gates, residual paths and copies are left out. Every product of a shape reads the same input, from the cache.
    """
    inputs: dict[tuple[int, ...], torch.Tensor] = {}
    work: list[Callable[[], object]] = []

    def rows(count: int, width: int) -> torch.Tensor:
        return inputs.setdefault((count, width), torch.randn(count, width, device=x.device))

    def note(module: torch.nn.Module, call: Call) -> None:
        z = call.input
        if isinstance(module, torch.nn.Linear) or module.__dict__.get("_conv_forward") is channel_product:
            weight = module.weight.flatten(1)
            count = z.numel() // weight.shape[1]
            work.append(partial(torch.mm, rows(count, weight.shape[1]), weight.t()))
            if len(weight) == 4 * weight.shape[1]:  # the FFN's first layer
                work.append(partial(torch.nn.functional.gelu, rows(count, len(weight))))
        else:
            z = inputs.setdefault(tuple(z.shape), z.clone(memory_format=torch.channels_last))
            options = module.stride, module.padding, module.dilation, module.groups
            work.append(partial(torch.nn.functional.conv2d, z, module.weight, None, *options))

    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    with capture({name: part for name, part in model.named_modules() if isinstance(part, kinds)}, keep=note):
        model(x)

    def run() -> None:
        for one in work:
            one()

    return run


@torch.inference_mode()
def forward(arguments: argparse.Namespace) -> None:
    """A forward pass at 224 against the plain NCHW transcription of the published code."""
    for name in arguments.models:
        model = create_model(name)
        plain = plain_model(name, model.state_dict())
        x = torch.randn(arguments.batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        model, plain, x = model.to(arguments.device), plain.to(arguments.device), x.to(arguments.device)
        expected = plain(x)
        difference = float((model(x) - expected).abs().max() / expected.abs().max())
        if difference > (1e-5 if arguments.device == "cpu" else 1e-3):
            raise SystemExit(f"{name}: outputs differ by {difference:.1e} of the largest value")
        sides: dict[str, Callable[[], object]] = {"horinsight": partial(model, x), "plain": partial(plain, x)}
        if arguments.compile:
            sides["compiled"] = partial(torch.compile(model), x)
        if arguments.bound:
            sides["products, convolutions, GELU alone"] = needed_work(model, x)
        report(f"forward {name} x{arguments.batch}", alternate(sides, arguments.repeats, arguments.device), "plain")


SPENT = """
import os
print()
print(os.times().user, next(row for row in open("/proc/self/status") if row.startswith("VmHWM:")).split()[1])
"""  # not ru_maxrss, which a process inherits from the one that started it


def spent(code: str) -> tuple[float, float]:
    """User CPU seconds of a Python program, and its peak resident memory in MB."""
    done = subprocess.run([sys.executable, "-c", code + SPENT], capture_output=True, text=True, check=True)
    seconds, kilobytes = done.stdout.split()[-2:]
    return float(seconds), int(kilobytes) / 1024


def import_shares(code: str) -> Counter[str]:
    """Seconds that a Python program spends on importing each top-level package, without what that imports in turn."""
    command = [sys.executable, "-X", "importtime", "-c", code]
    log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    shares: Counter[str] = Counter()
    for microseconds, name in re.findall(r"import time: +(\d+) \| +\d+ \| +([\w.]+)", log):
        shares[name.split(".")[0]] += int(microseconds) / 1e6
    return shares


def start(arguments: argparse.Namespace) -> None:
    """What a start costs: user CPU seconds and peak memory, the least of several runs, and the dearest imports."""
    command = "from horinsight.cli.main import exit_status; exit_status({!r}.split())"
    programs = {
        "import horinsight": "import horinsight",
        "horinsight --help": command.format("--help"),
        "import torch": "import torch",
        "import timm": "import timm",
        "horinsight flops": command.format("flops --model hornet_tiny_7x7"),
        "horinsight ie": command.format("ie --model hornet_s_iso --images chelsea"),
    }
    for name, code in programs.items():
        repeats = range(min(arguments.repeats, 5))
        seconds, megabytes = (min(values) for values in zip(*(spent(code) for _ in repeats), strict=True))
        shares = min((import_shares(code) for _ in repeats), key=Counter.total)
        dearest = ", ".join(f"{package} {share / shares.total():.0%}" for package, share in shares.most_common(5))
        print(f"{name:18} {seconds:5.2f} s, {megabytes:4.0f} MB; of its imports: {dearest}")


def autograd_seconds(gnconv: torch.nn.Module, x: torch.Tensor, channels: int, passes: int) -> float:
    """Seconds of one backward pass that gives one row of ∂p_n/∂v with the gate frozen, as a median.

    The graph holds f alone (the gate is a constant). The cotangent is 1 at one query, for `channels` channels.
    """
    dims = gnconv.dims
    with torch.no_grad():
        q = gnconv.proj_in(x)[:, dims[0] :].contiguous(memory_format=torch.channels_last)
        gate = torch.randn(len(x), dims[-1], *x.shape[2:])
    q.requires_grad_()
    p = gnconv.dwconv(q)[:, -dims[-1] :] * gnconv.scale * gate
    cotangent = torch.zeros_like(p)
    cotangent[:, :channels, 3, 4] = 1
    seconds = []
    for _ in range(passes):
        start = time.perf_counter()
        torch.autograd.grad(p, q, cotangent, retain_graph=True)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def mixing(arguments: argparse.Namespace) -> None:
    """All channel-mean maps of hornet_s_iso against the forward pass and against automatic differentiation."""
    model = create_model("hornet_s_iso")
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))

    def maps() -> object:
        return model_mixing_weights(model, x, keep=lambda weights: weights.channel_mean())

    @torch.no_grad()
    def plain() -> object:
        return model(x)

    seconds = alternate({"maps": maps, "forward": plain}, arguments.repeats, arguments.device)
    ratios = statistics.quantiles([a / b for a, b in zip(seconds["maps"], seconds["forward"], strict=True)], n=4)
    print(f"all channel-mean maps / forward pass: {ratios[1]:.2f} ({ratios[0]:.2f} to {ratios[2]:.2f})")

    both, alone = statistics.median(seconds["maps"]), statistics.median(seconds["forward"])
    one = autograd_seconds(model.blocks[6].gnconv, torch.randn(1, 384, 14, 14), 384, 50)
    by_query, by_channel = 13 * 196 * one, 13 * 196 * 384 * one
    print(f"autograd, one backward pass of f: {one * 1e3:.2f} ms, so for 13 blocks x 196 queries {by_query:.1f} s")
    print(f"  one pass a query (knows that f is depthwise): {by_query / both:.0f} x the maps with their forward pass,")
    print(f"    {by_query / max(both - alone, 1e-9):.0f} x what the maps cost above the forward pass that both need")
    print(f"  one pass a query and channel (any operator): {by_channel / both:.0f} x the maps with their forward pass")

    forward_pass = (
        "import torch, horinsight\nm = horinsight.create_model('hornet_tiny_7x7')\n"
        "x = torch.randn(1, 3, 224, 224)\nwith torch.no_grad():\n    m(x)\n"
    )
    means = "h = horinsight.model_mixing_weights(m, x, keep=lambda w: w.channel_mean())"
    extra = spent(forward_pass + means)[1] - spent(forward_pass)[1]
    print(f"peak memory of all channel means of hornet_tiny_7x7 at 224, above its forward pass: {extra:.0f} MB")


def reach(arguments: argparse.Namespace) -> None:
    """The effective receptive field of one position of resnet18's last stage, against a forward and backward pass."""
    model = create_model("resnet18")
    names = ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3", "layer4")
    stages = torch.nn.Sequential(*(getattr(model, name) for name in names)).requires_grad_(False).to(arguments.device)
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(arguments.device)

    def passes() -> object:
        """What the field of one channel takes."""
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(stages(leaf)[0, 0, 3, 3], leaf)

    def field(probes: int) -> object:
        return influence(stages, x, queries=[(3, 3)], probes=probes)

    for probes in (1, 16):
        seconds = alternate({"field": partial(field, probes), "passes": passes}, arguments.repeats, arguments.device)
        pairs = zip(seconds["field"], seconds["passes"], strict=True)
        low, middle, high = statistics.quantiles([a / probes / b for a, b in pairs], n=4)
        print(f"{probes} probes: each / a forward and backward pass: {middle:.2f} ({low:.2f} to {high:.2f})")


def interaction(arguments: argparse.Namespace) -> None:
    """Derivatives of a gnConv (C = 384, n = 5, 14x14, batch 8): closed form against nested differentiation."""
    torch.manual_seed(0)
    operator = GnConv(384, 5).requires_grad_(False)
    x = torch.randn(8, 384, 14, 14)
    num = 8 * 32  # 32 chains an image, as `horinsight ie` draws
    image = torch.arange(num) % 8
    directions = torch.randn(num, 8, 384)
    u = torch.randint(0, 2, (num, 384)) * 2.0 - 1
    form = closed_form_of(operator, x, explicit=True)
    assert form is not None
    i = torch.randint(196, (num,))
    around = form.field(i, (14, 14)).scatter(1, i[:, None], False)  # what the output at i depends on, without i
    cells = torch.cat([i[:, None], torch.multinomial(around.float(), 7)], dim=1)
    found = (form.mixed(x, cells[:8], directions[:8]) * u[:8, None]).sum(-1).double()
    expected = mixed_derivatives(operator, x, cells[:8], directions[:8], u[:8])
    worst = float(((found - expected).abs().amax(0) / expected.abs().amax(0).clamp(min=1e-30)).max())
    if worst > 1e-3:
        raise SystemExit(f"the two differ by {worst:.1e}")

    def nested_jvp() -> object:
        """D_0..D_7 of eight chains by forward mode inside forward mode."""
        derivative: Callable[[torch.Tensor], torch.Tensor] = operator
        for t in range(8):
            v = torch.zeros_like(x)
            v.flatten(2)[torch.arange(8), :, cells[:8, t]] = directions[:8, t]
            derivative = partial(lambda inner, v, z: torch.func.jvp(inner, (z,), (v,))[1], derivative, v)
        return derivative(x)

    # both sides go through the same draws, because a window at the edge has fewer cells
    draws, same_draws = (cycle(zip(cells.split(8), directions.split(8), u.split(8), strict=True)) for _ in range(2))

    sides: dict[str, Callable[[], object]] = {
        "closed": lambda: form.mixed(x, *next(draws)[:2]),
        "nested": lambda: mixed_derivatives(operator, x, *next(same_draws)),
    }
    seconds = alternate(sides, arguments.repeats, arguments.device)
    closed, nested = (statistics.median(seconds[name]) for name in sides)
    together = {"256 chains": lambda: form.mixed(x, cells, directions, image=image)}
    many = statistics.median(alternate(together, arguments.repeats, arguments.device)["256 chains"])
    print(f"one chain an image: closed form {closed * 1e3:.1f} ms, nested reverse mode {nested * 1e3:.0f} ms:")
    print(f"  {nested / closed:.0f} x as fast")
    start = time.perf_counter()
    for part in torch.arange(num).split(8):
        mixed_derivatives(operator, x[image[part]], cells[part], directions[part], u[part])
    whole = time.perf_counter() - start
    print(f"32 chains an image: closed form {many * 1e3:.1f} ms, nested reverse mode in batches of 8 {whole:.1f} s:")
    print(f"  {whole / many:.0f} x as fast")
    start = time.perf_counter()
    nested_jvp()
    jvp = time.perf_counter() - start
    print(f"nested torch.func.jvp of D_0..D_7, one chain an image: {jvp:.0f} s: {jvp / closed:.0f} x the closed form,")
    print(f"  {32 * jvp / many:.0f} x for 32 chains an image")

    print("time of all of a model's blocks, against chains and blocks (closed form, then nested):")
    model, images = create_model("hornet_s_iso"), torch.randn(1, 3, 224, 224)
    for method, draws in (("closed_form", (64, 128, 256)), ("nested", (16, 32))):
        for blocks in ([1, 2], [1, 2, 3, 4]):
            for num_tuples in draws:
                start = time.perf_counter()
                model_interaction_spectra(model, images, blocks=blocks, num_tuples=num_tuples, method=method)
                print(f"  {method:11} {len(blocks)} blocks, {num_tuples:3} chains: {time.perf_counter() - start:.2f} s")


def main() -> None:
    """Parse, run one benchmark, print the machine and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="benchmark", required=True)
    command = commands.add_parser("forward", help=forward.__doc__)
    command.add_argument("--models", nargs="+", default=["hornet_tiny_7x7", "hornet_s_iso"], choices=list(PLAIN_MODELS))
    command.add_argument("--batch", type=int, default=1)
    command.add_argument("--compile", action="store_true", help="also torch.compile(model)")
    command.add_argument("--bound", action="store_true", help="also what no layout can save, by itself")
    command.set_defaults(run=forward)
    command = commands.add_parser("mixing", help=mixing.__doc__)
    command.set_defaults(run=mixing)
    command = commands.add_parser("interaction", help=interaction.__doc__)
    command.set_defaults(run=interaction)
    command = commands.add_parser("reach", help=reach.__doc__)
    command.set_defaults(run=reach)
    command = commands.add_parser("start", help=start.__doc__)
    command.set_defaults(run=start)
    for command in commands.choices.values():
        command.add_argument("--repeats", type=int, default=20)
        command.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    arguments = parser.parse_args()
    print(machine())
    arguments.run(arguments)


if __name__ == "__main__":
    main()
