"""Figure 4 of the paper from Python: where positions look, in six blocks of the isotropic HorNet-S.

`python experiments/figure4_mixing_maps.py [checkpoint.pth]` writes figure4.pdf and figure4.npz.
"""

import sys

import horinsight

NAMES = ["chelsea", "astronaut", "coffee", "rocket"]

model = horinsight.create_model("hornet_s_iso", checkpoint=sys.argv[1] if len(sys.argv) > 1 else None)
photographs = horinsight.sample_images()
images = horinsight.image_batch(model, [photographs[name] for name in NAMES])
queries = horinsight.random_queries(len(NAMES), 2, (14, 14), seed=0)
maps = horinsight.query_maps(model, images, queries, blocks=horinsight.FIGURE_4_BLOCKS, image_names=NAMES)
horinsight.save_figure(horinsight.draw_mixing_maps(maps), "figure4.pdf")
horinsight.save_result(maps, "figure4.npz")
