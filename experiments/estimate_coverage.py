"""How often intervals of estimates over images hold the truth: adaptivity, distances, radii, effects on data.

python experiments/estimate_coverage.py                 # a table, 400 repetitions
python experiments/estimate_coverage.py --repetitions 100

Images are maps of noise of different scale, drawn anew in each repetition (seed 1, 2, …). Two truths are asked for: the
value that many images have ("of all images"), and the mean of the estimate at that number of images ("at so many"): a
statistic that is not a mean over images, such as a share of a variance, differs between the two.
"""

import argparse
from collections.abc import Callable, Iterator

import numpy as np
import torch
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

from horinsight import Estimate, GnConv, adaptivity, influence, interaction_effects, mixing_weights, reach_of

NUM_IMAGES = (3, 8, 16)
MANY = 400  # images that tell the truth
TRUTH_SEED = 10_000
SCALE_SPREAD = 0.3  # of the logarithm, over images

Estimates = Callable[[int, int], dict[str, Estimate]]  # number of images, seed → quantity → estimate


def noise(shape: tuple[int, ...], num_images: int, seed: int) -> Tensor:
    """Images of noise, of different scale."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.exp(SCALE_SPREAD * torch.randn(num_images, *[1] * len(shape), generator=generator))
    return torch.randn(num_images, *shape, generator=generator) * scale


def drawn_weights(module: nn.Module) -> nn.Module:
    """Weights of order one."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 10
        nn.init.normal_(parameter, std=fan_in**-0.5)
    return module.eval()


def of_mixing_weights(mixer: nn.Module, shape: tuple[int, ...]) -> Estimates:
    """Adaptivity and distances."""

    def estimates(num_images: int, seed: int) -> dict[str, Estimate]:
        found = adaptivity(mixing_weights(mixer, noise(shape, num_images, seed)))
        return {name: value for name, value in vars(found).items() if isinstance(value, Estimate)}

    return estimates


def of_reach(operator: nn.Module, shape: tuple[int, ...], probes: int) -> Estimates:
    """Radii, by random signs."""

    def estimates(num_images: int, seed: int) -> dict[str, Estimate]:
        found = influence(operator, noise(shape, num_images, seed), queries=[(3, 3)], probes=probes, seed=seed)
        radii = reach_of(found, image_size=(7, 7)).estimates
        return {name: radii[name] for name in ("radius_50", "radius_90", "total")}

    return estimates


def of_effects_on_data(num_rows: int) -> Estimates:
    """E[(∂²f/∂x_0∂x_1)²] of x_0² x_1² and of exp(x_0 x_1), over normal rows: heavy-tailed squares."""

    def estimates(num_images: int, seed: int) -> dict[str, Estimate]:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(num_rows * num_images, 2, generator=generator, dtype=torch.float64)
        functions = {
            "of x0^2 x1^2": lambda z: z[:, 0] ** 2 * z[:, 1] ** 2,
            "of exp(x0 x1 / 4)": lambda z: torch.exp(z[:, 0] * z[:, 1] / 4),
        }
        return {name: interaction_effects(f, x, [(0, 1)])[(0, 1)] for name, f in functions.items()}

    return estimates


def settings() -> Iterator[tuple[str, Estimates]]:
    """By name."""
    yield "g2Conv", of_mixing_weights(drawn_weights(GnConv(8, 2, kernel_size=3)), (8, 6, 6))
    yield "attention", of_mixing_weights(drawn_weights(Attention(8, num_heads=2)), (16, 8))
    yield "reach, 4 probes", of_reach(drawn_weights(GnConv(8, 2, kernel_size=3)), (8, 7, 7), 4)
    yield "effect on data, 32 rows an image", of_effects_on_data(32)


def rows(name: str, estimates: Estimates, num_images: int, repetitions: int) -> Iterator[str]:
    """A line for each quantity."""
    truth = {key: estimate.value for key, estimate in estimates(MANY, TRUTH_SEED).items()}
    runs = [estimates(num_images, seed) for seed in range(1, repetitions + 1)]
    for key in truth:
        values = np.array([run[key].value for run in runs])
        low, high = np.array([run[key].interval for run in runs]).T
        errors = np.array([run[key].standard_error for run in runs])
        if not np.isfinite(low).all():
            continue
        mean, spread = values.mean(), values.std(ddof=1)
        if spread <= 1e-9 * abs(mean):
            continue  # the same whatever the images
        shares = [((low <= true) & (true <= high)).mean() for true in (truth[key], mean)]
        told = np.sqrt(np.square(errors).mean()) / spread
        yield (
            f"| {name} | {key} | {num_images} | {shares[0]:.2f} | {shares[1]:.2f} | {mean / truth[key] - 1:+.0%} | "
            f"{told:.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=400)
    arguments = parser.parse_args()
    print("| of | quantity | images | covered, of all images | at so many | bias | told / true standard error |")
    print("|" + "---|" * 7)
    for name, estimates in settings():
        for num_images in NUM_IMAGES:
            for line in rows(name, estimates, num_images, arguments.repetitions):
                print(line, flush=True)


if __name__ == "__main__":
    main()
