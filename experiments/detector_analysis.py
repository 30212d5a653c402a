"""Every analysis inside a detector at the size of COCO's pictures: `python experiments/detector_analysis.py --help`."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import horinsight
from horinsight.mixers.blocks import MixingBlock, block_map_sizes

SIZE = (800, 1280)
GIB = 2**20  # in the kB of /proc


def peak_memory(*, reset: bool = False) -> float:
    """GiB that this process held at most (Linux), since it was last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    rows = Path("/proc/self/status").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("VmHWM:")) / GIB


def measured(what: str, call: Callable[[], Any]) -> Any:
    """What a call gives; its time and the peak of the memory are printed."""
    peak_memory(reset=True)
    start = time.perf_counter()
    found = call()
    print(f"| {what} | {time.perf_counter() - start:.0f} s | {peak_memory():.2f} GiB |", flush=True)
    return found


def last_of_each_map(blocks: list[MixingBlock]) -> list[MixingBlock]:
    """The last block of each stage of the backbone, and all of the pyramid."""
    stages: dict[str, MixingBlock] = {}
    for block in blocks:
        inside = block.name.startswith("levels.")
        stages[block.name.rsplit(".", 2)[0] if inside else block.name] = block
    return list(stages.values())


def main() -> None:
    """Detect, then list, weigh, differentiate and trace back; one line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="hornet_tiny_gf")
    parser.add_argument("--fpn", default="horfpn_gf", choices=["fpn", "horfpn_7x7", "horfpn_gf"])
    parser.add_argument("--cascade", action="store_true")
    parser.add_argument("--checkpoint")
    parser.add_argument("--picture", default="motorcycle")
    parser.add_argument("--tuples", type=int, default=2)
    parser.add_argument("--probes", type=int, default=1)
    arguments = parser.parse_args()
    build = horinsight.cascade_mask_rcnn if arguments.cascade else horinsight.mask_rcnn
    detector = build(arguments.backbone, fpn=arguments.fpn)
    if arguments.checkpoint:
        print(horinsight.load_checkpoint(detector, arguments.checkpoint))
    picture = horinsight.sample_images()[arguments.picture]
    colours = horinsight.image_batch(detector, [picture], image_size=SIZE)
    images = horinsight.image_batch(detector.backbone, [picture], image_size=SIZE)

    print(f"{arguments.backbone}, {arguments.fpn}, {SIZE[0]}x{SIZE[1]}\n\n| what | time | peak memory |\n|---|---|---|")
    with torch.no_grad():
        detections = measured("detections", lambda: detector(colours))
        measured("maps of the pyramid", lambda: detector.backbone(images))
    blocks = measured("blocks", lambda: horinsight.named_blocks(detector.backbone, image_size=SIZE))
    chosen = [block.index for block in last_of_each_map(blocks)]
    sizes = block_map_sizes(detector.backbone, SIZE)
    maps = measured(
        "mixing weights of one position in each block",
        lambda: horinsight.model_mixing_weights(
            detector.backbone, images, blocks=chosen, keep=lambda weights: weights.at(3, 5).mean(1)
        ),
    )
    spectra = measured(
        "interaction spectra",
        lambda: horinsight.model_interaction_spectra(
            detector.backbone, images, blocks=chosen, num_tuples=arguments.tuples
        ),
    )
    reaches = measured(
        "reach, back to the picture",
        lambda: horinsight.model_influence(
            detector.backbone, images, blocks=chosen, scope="image", probes=arguments.probes
        ),
    )
    print(
        f"\n{len(detections[0]['boxes'])} boxes\n\n| block | map | order | radius of 90 %, pixels |\n|---|---|---|---|"
    )
    for name in maps:
        radius = reaches[name].radii_pixels[0, 0, 1]
        print(f"| {name} | {sizes[name][0]}x{sizes[name][1]} | {spectra[name].location_order} | {radius:.0f} |")


if __name__ == "__main__":
    main()
