"""The filters of a GF layer, in frequency and in space: `python experiments/gf_filters.py --help`."""

import argparse

import horinsight
from horinsight.mixers.blocks import block_map_sizes
from horinsight.models.origin import weights_origin
from horinsight.models.provenance import weights_sha256


def main() -> None:
    """Draw the filters of one block."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="hornet_s_iso_gf")
    parser.add_argument("--block", type=int, default=1, help="index from `horinsight blocks`")
    parser.add_argument("--checkpoint")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--output", default="gf_filters.png")
    arguments = parser.parse_args()
    model = horinsight.create_model(arguments.model, checkpoint=arguments.checkpoint)
    block = next((b for b in horinsight.named_blocks(model) if b.index == arguments.block), None)
    layer = getattr(block.module, "dwconv", None) if block else None
    if block is None or not isinstance(layer, horinsight.GlobalLocalFilter):
        raise SystemExit(f"Block {arguments.block} of {arguments.model} has no GF layer: see horinsight blocks.")
    size = block_map_sizes(model, (arguments.image_size,) * 2)[block.name]
    origin = weights_origin(model)
    provenance = horinsight.Provenance(
        arguments.model, origin.source, origin.trained, weights_sha256(model), images=(), seed=0
    )
    kernels = horinsight.filter_kernels(layer, size, name=f"block {block.index}", provenance=provenance)
    horinsight.save_figure(horinsight.draw_filters(kernels), arguments.output)


if __name__ == "__main__":
    main()
