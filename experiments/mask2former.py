"""Mask2Former on a HorNet: segments a photograph and analyses its backbone: `python experiments/mask2former.py --help`.

With random weights what it segments means nothing; that it runs, what it costs and the orders are the point.
"""

import argparse
import time

import torch

import horinsight
from horinsight.mixers.blocks import block_map_sizes


def main() -> None:
    """Build, segment, list the last block of each stage with its order and mixing weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="hornet_large_gf_img384")
    parser.add_argument("--picture", default="motorcycle")
    parser.add_argument("--side", type=int, default=640, help="pixels: Table 5 has 640")
    parser.add_argument("--tuples", type=int, default=2)
    arguments = parser.parse_args()
    size = (arguments.side, arguments.side)
    start = time.perf_counter()
    model = horinsight.mask2former(arguments.backbone)
    count = sum(weight.numel() for weight in model.parameters())
    print(f"{arguments.backbone}: {count / 1e6:.1f} M parameters, built in {time.perf_counter() - start:.0f} s")

    encoder = model.model.pixel_level_module.encoder
    picture = horinsight.sample_images()[arguments.picture]
    images = horinsight.image_batch(encoder, [picture], image_size=size)
    start = time.perf_counter()
    with torch.no_grad():
        output = model(images)
    classes, masks = output.class_queries_logits.softmax(-1)[..., :-1], output.masks_queries_logits.sigmoid()
    segments = torch.einsum("bqc,bqhw->bchw", classes, masks).argmax(1)
    seconds = time.perf_counter() - start
    print(f"segmented in {seconds:.0f} s: {tuple(segments.shape[1:])} places, {len(segments.unique())} classes\n")

    blocks = horinsight.named_blocks(encoder, image_size=size)
    last = {block.name.rsplit(".", 2)[0]: block.index for block in blocks}
    chosen, sizes = list(last.values()), block_map_sizes(encoder, size)
    spectra = horinsight.model_interaction_spectra(encoder, images, blocks=chosen, num_tuples=arguments.tuples)
    weights = horinsight.model_mixing_weights(
        encoder, images, blocks=chosen, keep=lambda found: found.at(found.height // 2, found.width // 2).mean(1)
    )
    print("| block | map | order | share of the weights within the 7x7 around |\n|---|---|---|---|")
    for name, spectrum in spectra.items():
        height, width = sizes[name]
        share = weights[name][0].abs()
        near = share[height // 2 - 3 : height // 2 + 4, width // 2 - 3 : width // 2 + 4].sum() / share.sum()
        print(f"| {name} | {height}x{width} | {spectrum.location_order} | {near:.2f} |", flush=True)


if __name__ == "__main__":
    main()
