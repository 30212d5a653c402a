"""What is measured inside a segmenter: at 512 x 2048 pixels, a map of 128 x 512, and where a trained HorFPN looks.

`python experiments/dense_prediction.py wide` prints identities, orders, reach, time and memory;
`python experiments/dense_prediction.py maps --output horfpn.png` trains a segmenter on shapes and draws its HorFPN.
"""

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import horinsight
from horinsight import UperNet
from horinsight.models.origin import WeightsOrigin, set_weights_origin

PICTURE = (512, 2048)
FILTERS = ((32, 17), (32, 17), (24, 13), (12, 7))  # GF in all four stages: the first on the map of 128 x 512
STEPS = 200


def small_segmenter(horfpn: str, **options: Any) -> UperNet:
    """A HorNet of one block a stage under UperNet with HorFPN."""
    return horinsight.upernet("hornet_test_gf", horfpn=horfpn, num_classes=3, **options)


def shapes(number: int, side: int) -> tuple[Tensor, Tensor]:
    """Noisy pictures of a green rectangle and a blue disc on red ground, and the class of each pixel."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    targets = torch.zeros(number, side, side, dtype=torch.long)
    for target in targets:
        top, left, height, width = torch.randint(side // 8, side // 2, (4,)).tolist()
        target[top : top + height, left : left + width] = 1
        y, x, radius = torch.randint(side // 4, 3 * side // 4, (3,)).tolist()
        target[(rows - y) ** 2 + (columns - x) ** 2 < (radius / 4) ** 2] = 2
    colours = torch.eye(3)[targets].permute(0, 3, 1, 2)
    return colours + 0.3 * torch.randn_like(colours), targets


def trained(model: UperNet, side: int) -> list[float]:
    """Trains a segmenter on shapes; the losses."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=3e-3)
    losses = []
    for _ in range(STEPS):
        loss = sum(model(*shapes(4, side)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    set_weights_origin(model.eval(), WeightsOrigin(f"trained on synthetic shapes, {STEPS} steps", trained=True))
    return losses


def said_with_cost(what: str, measured: Callable[[], dict[str, Any]]) -> None:
    """Prints what a measurement gives, its time, and the most memory that this process has held so far."""
    start = time.perf_counter()
    found = measured()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what}: {seconds:.1f} s, peak {peak:.2f} GiB")
    for name, value in found.items():
        print(f"  {name}: {value}")


def measure_wide(horfpn: str) -> None:
    """Everything at 512 x 2048 pixels."""
    torch.manual_seed(0)
    model = small_segmenter(horfpn, channels=64, auxiliary_channels=0, base_dim=16, gf_sizes=FILTERS)
    image = torch.randn(1, 3, *PICTURE)
    last = len(horinsight.named_blocks(model, image_size=PICTURE))
    print(f"HorFPN {horfpn}, {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {last} blocks")

    def identity() -> dict[str, Any]:
        return horinsight.model_mixing_weights(
            model, image, keep=lambda w: f"map {w.height}x{w.width}, identity to {w.reconstruction_error:.1e}"
        )

    def orders() -> dict[str, Any]:
        spectra = horinsight.model_interaction_spectra(
            model, image, blocks=[1, 3, 5, last], num_tuples=8, seed=0, max_order=5
        )
        return {name: f"order {s.location_order}, degree {s.degree_order}" for name, s in spectra.items()}

    def reach() -> dict[str, Any]:
        found = horinsight.model_influence(model, image, blocks=[1, last], scope="image", probes=4, batch_size=1)
        return {name: f"radii in pixels {r.radii_pixels[0, 0].round(1).tolist()}" for name, r in found.items()}

    with torch.no_grad():
        said_with_cost("forward", lambda: {"masks": tuple(model.masks(image).shape)})
    said_with_cost("mixing weights", identity)
    said_with_cost("interaction spectra", orders)
    said_with_cost("reach back to the image, 4 probes", reach)


def draw_maps(output: str, side: int = 128) -> None:
    """Figure 4 of the HorFPN of two trained segmenters' finest level: 7x7 and GF."""
    for horfpn in ("conv", "gf"):
        torch.manual_seed(0)
        model = small_segmenter(horfpn, channels=32, auxiliary_channels=16)
        losses = trained(model, side)
        images, targets = shapes(2, side)
        right = float((model.masks(images) == targets).double().mean())
        print(f"HorFPN {horfpn}: loss {losses[0]:.2f} → {sum(losses[-20:]) / 20:.2f}, {right:.1%} of the pixels right")
        blocks = horinsight.named_blocks(model, image_size=(side, side))
        queries = horinsight.random_queries(len(images), 2, (side // 4, side // 4), seed=0)
        names = [f"shapes {number}" for number in range(1, len(images) + 1)]
        maps = horinsight.query_maps(
            model,
            images,
            queries,
            blocks=[1, 2, len(blocks)],
            image_names=names,
            model_name=f"UperNet, HorFPN {horfpn}",
        )
        stem, _, ending = output.rpartition(".")
        horinsight.save_figure(horinsight.draw_mixing_maps(maps), f"{stem}_{horfpn}.{ending}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["wide", "maps"])
    parser.add_argument("--horfpn", choices=["conv", "gf"], default="gf", help="f of HorFPN's gnConv")
    parser.add_argument("--output", default="horfpn.png", help="where maps are drawn")
    arguments = parser.parse_args()
    if arguments.what == "wide":
        measure_wide(arguments.horfpn)
    else:
        draw_maps(arguments.output)
