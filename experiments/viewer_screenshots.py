"""Screenshots of every page of the viewer: light and dark, three window sizes, and a telephone.

python experiments/viewer_screenshots.py --output out/screenshots   # mixing_digits and spectra_tiny are the README's
"""

import argparse
import tempfile
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import BrowserContext, Page, sync_playwright
from viewer_folders import classes_folder, results_folder
from viewer_process import CHROMIUM, FLAGS, Server

SIZES = {"1280x720": (1280, 720), "1440x900": (1440, 900), "1024x768": (1024, 768), "390x844": (390, 844)}
MAPS = ".gallery[data-ready]"
PAIRS = ".pairs[data-ready]"
STACK = ".stack[data-ready]"
CURVES = "text=One picture proves nothing"
NUMBERS = "text=Numbers and convention"


class State(NamedTuple):
    """A page as somebody sees it.

    Attributes:
        address: of the page.
        wait: what is there once it is ready.
        presses: labels that are pressed then.
        then: what is there once the last press has done its work.
    """

    address: str
    wait: str
    presses: tuple[str, ...] = ()
    then: str = ""


PAGES = {
    "mixing_digits": State("/?row=6&col=9", MAPS),
    "mixing_iso": State("/?model=hornet_s_iso&image=chelsea&row=5&col=9", MAPS),
    "mixing_swin": State("/?model=swin_tiny_patch4_window7_224&image=astronaut&row=4&col=6", MAPS),
    "mixing_blocks": State("/?row=6&col=9", MAPS, ("Blocks",)),
    "mixing_display": State("/?row=6&col=9", MAPS, ("Display",)),
    "mixing_adaptivity": State("/?row=6&col=9", MAPS, ("Adaptivity", "Measure over several pictures")),
    "mixing_download": State("/?row=6&col=9", MAPS, ("Download",)),
    "mixing_no_picture": State("/?source=Upload", "text=No picture yet"),
    "mixing_words": State("/", MAPS, ("What is this?",)),
    "mixing_bad_link": State("/?model=alexnet&row=99", "text=The link asks for"),
    "blocks_digits": State("/blocks?row=6&col=9&depth=rollout", STACK),
    "blocks_tiny": State("/blocks?model=hornet_tiny_7x7&image=coffee&depth=9", STACK),
    "blocks_deit": State("/blocks?model=deit_small_patch16_224&image=coffee&depth=6", STACK),
    "orders_digits": State("/blocks?show=Orders&row=6&col=9&order=3", ".stack[data-ready$=':6:6:9']"),
    "spectra_digits": State("/spectra", NUMBERS),
    "spectra_settings": State("/spectra", NUMBERS, ("Settings",)),
    "spectra_numbers": State("/spectra", NUMBERS, ("Numbers and convention",)),
    "spectra_tiny": State("/spectra?model=hornet_tiny_7x7&image=coffee&tuples=8", NUMBERS),
    "spectra_deit": State("/spectra?model=deit_small_patch16_224&image=coffee", "text=Measure 12 blocks"),
    "attribution_digits": State("/attribution", CURVES),
    "attribution_position": State(
        "/attribution?explain=Position&at_block=8&row=6&col=8", "text=What the residual block"
    ),
    "attribution_methods": State("/attribution", CURVES, ("Methods",)),
    "attribution_tiny": State("/attribution?model=hornet_tiny_7x7&image=coffee", "text=Press Ask"),
    "cost_tiny": State("/cost?model=hornet_tiny_7x7", "text=of 25 hold"),
    "cost_numbers": State("/cost?model=swin_tiny_patch4_window7_224", "text=Parts of the network", ("Numbers",)),
    "cost_gf": State("/cost?model=hornet_s_iso_gf", "text=use GF"),
    "compare_models": State("/compare?model_b=hornet_s_iso&row=4&col=8", PAIRS),
    "compare_pictures": State("/compare?compare=pictures&row=4&col=8", PAIRS),
    "filters_digits": State("/filters?filter_block=8", ".filters figure"),
    "filters_gf": State("/filters?model=hornet_s_iso_gf&image=coffee&filter_block=5", ".filters figure"),
    "classes_choose": State("/classes", "text=Choose classes"),
    "classes_measured": State(
        "/classes?row=6&col=9", "text=Choose classes", ("Measure 8 pictures",), "img[alt^='Numbers of each class']"
    ),
    "classes_survey": State("/classes?classes_from=A+survey&class_survey=ie/", "img"),
    "results_nothing": State("/results?results_from=Upload", "text=Nothing yet"),
    "results_maps": State("/results?result=maps_digit_3.npz", "img[alt^='Figure of']"),
    "results_two": State(
        "/results?result=spectra_digit_3.json&result_b=spectra_digit_8.json", "img[alt^='Figure of'] >> nth=1"
    ),
    "results_survey": State("/results?result=mixing/&by_class=true", "img[alt^='Figure of']"),
    "paper_table_1": State("/paper", "[data-testid=stDataFrame]"),
    "paper_table_6": State("/paper?part=Table+6", "[data-testid=stDataFrame]"),
    "paper_figure_1": State("/paper?part=Figure+1", "img[alt^='Interaction effects']"),
    "paper_figure_3": State("/paper?part=Figure+3", "img[alt^='Accuracy against']"),
    "paper_figure_4": State("/paper?part=Figure+4", "img[alt^='Mixing weights']"),
    **{
        f"tour_{step}": State(f"/{path}tour={step}", ready)
        for step, (path, ready) in enumerate(
            (
                ("?image=chelsea&row=5&col=9&", MAPS),
                ("?row=4&col=9&", MAPS),
                ("spectra?ie_blocks=1&ie_blocks=5&ie_blocks=9&ie_blocks=13&tuples=32&", NUMBERS),
                ("attribution?", CURVES),
                ("compare?row=4&col=9&", PAIRS),
            ),
            start=1,
        )
    },
}


def press(page: Page, label: str) -> None:
    """Press what carries a label, and let the page settle."""
    page.get_by_text(label, exact=True).first.click()
    page.wait_for_timeout(1500)


def opened(context: BrowserContext, url: str, state: State) -> Page:
    """A state of a page, ready."""
    page = context.new_page()
    page.goto(url + state.address)
    page.locator(state.wait).first.wait_for(timeout=120_000)
    page.wait_for_timeout(1200)  # what fades in has its colours late
    for label in state.presses:
        press(page, label)
    if state.then:
        page.locator(state.then).first.wait_for(timeout=120_000)
        page.wait_for_timeout(1200)
    return page


def started(folder: Path) -> Server:
    """A viewer with classes and results."""
    pictures = classes_folder(folder / "images")
    results = results_folder(folder / "results", pictures)
    return Server(folder / "log", "--images", str(pictures), "--results", str(results))


def unfold(page: Page, width: int) -> None:
    """Make the window as tall as the page, up to six screens of a telephone."""
    height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
    page.set_viewport_size({"width": width, "height": min(height, 5000)})
    page.wait_for_timeout(1200)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the PNGs")
    parser.add_argument("--pages", nargs="+", default=list(PAGES), choices=list(PAGES))
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--themes", nargs="+", default=["light", "dark"], choices=["light", "dark"])
    parser.add_argument("--whole", action="store_true", help="what lies below the window too")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = started(Path(folder))
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            for theme in arguments.themes:
                for size in arguments.sizes:
                    width, height = SIZES[size]
                    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
                    for name in arguments.pages:
                        page = opened(context, server.url, PAGES[name])
                        if arguments.whole:
                            unfold(page, width)
                        page.screenshot(path=arguments.output / f"{name}_{size}_{theme}.png")
                        page.close()
                    context.close()
        finally:
            browser.close()
            server.stop()
    print(f"written: {arguments.output}")


if __name__ == "__main__":
    main()
