"""Screenshots of every page of the viewer: light and dark, two window sizes, and a telephone.

python experiments/viewer_screenshots.py --output out/screenshots   # mixing_digits and spectra_tiny are the README's
"""

import argparse
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from viewer_process import CHROMIUM, FLAGS, Server

SIZES = {"1280x720": (1280, 720), "1440x900": (1440, 900), "1024x768": (1024, 768), "390x844": (390, 844)}
MAPS = ".gallery[data-ready]"
PAIRS = ".pairs[data-ready]"
PAGES = {  # name → address, what to wait for, what to press then
    "mixing_digits": ("/?row=6&col=9", MAPS, ()),
    "mixing_iso": ("/?model=hornet_s_iso&image=chelsea&row=5&col=9", MAPS, ()),
    "mixing_swin": ("/?model=swin_tiny_patch4_window7_224&image=astronaut&row=4&col=6", MAPS, ()),
    "mixing_blocks": ("/?row=6&col=9", MAPS, ("Blocks",)),
    "mixing_display": ("/?row=6&col=9", MAPS, ("Display",)),
    "mixing_adaptivity": ("/?row=6&col=9", MAPS, ("Adaptivity", "Measure over several pictures")),
    "mixing_download": ("/?row=6&col=9", MAPS, ("Download",)),
    "mixing_no_picture": ("/?source=Upload", "text=No picture yet", ()),
    "blocks_digits": ("/blocks?row=6&col=9&depth=rollout", ".stack[data-ready]", ()),
    "blocks_tiny": ("/blocks?model=hornet_tiny_7x7&image=coffee&depth=9", ".stack[data-ready]", ()),
    "blocks_deit": ("/blocks?model=deit_small_patch16_224&image=coffee&depth=6", ".stack[data-ready]", ()),
    "orders_digits": ("/blocks?show=Orders&row=6&col=9&order=3", ".stack[data-ready$=':6:6:9']", ()),
    "spectra_digits": ("/spectra", "text=Numbers and convention", ()),
    "spectra_tiny": ("/spectra?model=hornet_tiny_7x7&image=coffee&tuples=8", "text=Numbers and convention", ()),
    "spectra_deit": ("/spectra?model=deit_small_patch16_224&image=coffee", "text=Measure 12 blocks", ()),
    "attribution_digits": ("/attribution", "text=One picture proves nothing", ()),
    "attribution_position": (
        "/attribution?explain=Position&at_block=8&row=6&col=8",
        "text=What the residual block",
        (),
    ),
    "attribution_methods": ("/attribution", "text=One picture proves nothing", ("Methods",)),
    "attribution_tiny": ("/attribution?model=hornet_tiny_7x7&image=coffee", "text=Press Ask", ()),
    "cost_tiny": ("/cost?model=hornet_tiny_7x7", "text=of 25 hold", ()),
    "cost_gf": ("/cost?model=hornet_s_iso_gf", "text=use GF", ()),
    "compare_models": ("/compare?model_b=hornet_s_iso&row=4&col=8", PAIRS, ()),
    "compare_pictures": ("/compare?compare=pictures&row=4&col=8", PAIRS, ()),
    "filters_digits": ("/filters?filter_block=8", ".filters figure", ()),
    "filters_gf": ("/filters?model=hornet_s_iso_gf&image=coffee&filter_block=5", ".filters figure", ()),
    "results_nothing": ("/results", "text=Nothing yet", ()),
    "paper_table_1": ("/paper", "[data-testid=stDataFrame]", ()),
    "paper_figure_1": ("/paper?part=Figure+1", "img[alt^='Interaction effects']", ()),
    "paper_figure_4": ("/paper?part=Figure+4", "img[alt^='Mixing weights']", ()),
}


def press(page: Page, label: str) -> None:
    """Press what carries a label, and let the page settle."""
    page.get_by_text(label, exact=True).first.click()
    page.wait_for_timeout(1500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the PNGs")
    parser.add_argument("--pages", nargs="+", default=list(PAGES), choices=list(PAGES))
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--themes", nargs="+", default=["light", "dark"], choices=["light", "dark"])
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = Server(Path(folder) / "log")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            for theme in arguments.themes:
                for size in arguments.sizes:
                    width, height = SIZES[size]
                    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
                    for name in arguments.pages:
                        address, wait, presses = PAGES[name]
                        page = context.new_page()
                        page.goto(server.url + address)
                        page.locator(wait).first.wait_for(timeout=120_000)
                        page.wait_for_timeout(700)  # charts fade in
                        for label in presses:
                            press(page, label)
                        page.screenshot(path=arguments.output / f"{name}_{size}_{theme}.png")
                        page.close()
                    context.close()
        finally:
            browser.close()
            server.stop()
    print(f"written: {arguments.output}")


if __name__ == "__main__":
    main()
