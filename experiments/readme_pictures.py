"""Makes the pictures of the README: `python experiments/readme_pictures.py`."""

import io
import re
import subprocess
import sys
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME

import horinsight
from horinsight.interaction.order_ladder import ladder, rung_spectra

PICTURES = Path(__file__).parent / "pictures"


def terminal_picture(command: str, name: str, title: str) -> None:
    """What a command prints, as an SVG of a terminal."""
    program, *arguments = command.split()
    run = subprocess.run(
        [str(Path(sys.executable).parent / program), *arguments], capture_output=True, text=True, check=True
    )
    lines = [f"$ {command}", "", *run.stdout.splitlines()]
    console = Console(record=True, width=max(map(len, lines)) + 1, file=io.StringIO())
    console.print("\n".join(lines), markup=False, highlight=False, no_wrap=True)
    svg = console.export_svg(title=title, theme=DEFAULT_TERMINAL_THEME)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # no fonts from elsewhere
    (PICTURES / f"{name}.svg").write_text(svg.replace("Fira Code, monospace", "monospace"))


def figure_4(model_name: str, queries: dict[str, tuple[int, int]]) -> None:
    """Figure 4 for a few pictures, one query in each, small enough for a page."""
    model = horinsight.create_model(model_name)
    samples = horinsight.sample_images()
    maps = horinsight.query_maps(
        model,
        horinsight.image_batch(model, [samples[picture] for picture in queries]),
        [[query] for query in queries.values()],
        blocks=horinsight.FIGURE_4_BLOCKS,
        model_name=model_name,
        image_names=list(queries),
    )
    small_picture(horinsight.draw_mixing_maps(maps), f"figure4_{model_name}")


def spectra_digits(name: str) -> None:
    """Interaction spectra of the trained model, as `ie --plot` draws them."""
    model = horinsight.create_model("hornet_digits_iso")
    names = ["digit_3", "digit_5", "digit_8"]
    images = horinsight.image_batch(model, [horinsight.sample_images()[picture] for picture in names])
    spectra = horinsight.model_interaction_spectra(model, images, model_name="hornet_digits_iso", image_names=names)
    titles = {block.name: f"block {block.index}" for block in horinsight.named_blocks(model)}
    small_picture(horinsight.draw_interaction_spectra(spectra, titles=titles), name)


def fields_digits(name: str) -> None:
    """Effective receptive fields of the trained model, as `reach --plot` draws them."""
    model = horinsight.create_model("hornet_digits_iso")
    images = horinsight.image_batch(model, [horinsight.sample_images()["digit_3"]])
    fields = horinsight.model_influence(model, images, scope="image", model_name="hornet_digits_iso")
    titles = {block.name: f"block {block.index}" for block in horinsight.named_blocks(model)}
    pictures = horinsight.model_view(model, images)
    small_picture(horinsight.draw_reach_maps(fields, pictures, titles=titles, image_names=["digit_3"]), name)


def order_ladder(name: str) -> None:
    """Explicit spectra of the operators of `order_ladder.py`."""
    spectra = {rung.name: rung_spectra(rung)[0] for rung in ladder()}
    small_picture(horinsight.draw_interaction_spectra(spectra), name)


def cost(name: str) -> None:
    """The curves of `eq36_bound.py`."""
    orders = [horinsight.order_growth(dim) for dim in (64, 128, 256, 512)]
    sizes = horinsight.size_growth(384, 5, sides=[7, 14, 28, 56, 112, 224])
    small_picture(horinsight.draw_complexity_curves(orders, sizes), name)


def small_picture(figure: Figure, name: str) -> None:
    """A figure as a PNG small enough for a page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    Image.open(buffer).convert("RGB").quantize(256).save(PICTURES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    figure_4("hornet_s_iso", {"chelsea": (6, 3), "coffee": (9, 9)})
    figure_4("hornet_digits_iso", {"digit_3": (6, 7), "digit_5": (4, 6), "digit_8": (9, 7)})
    spectra_digits("ie_hornet_digits_iso")
    fields_digits("reach_hornet_digits_iso")
    terminal_picture("horinsight mixing --model hornet_digits_iso", "mixing_hornet_digits_iso", "horinsight")
    order_ladder("order_ladder")
    cost("eq36_bound")
    terminal_picture("horinsight ie --model hornet_s_iso", "ie_hornet_s_iso", "horinsight")
