"""How long a visitor of the viewer waits: from a click to new maps, from a new photograph to its maps.

python experiments/viewer_latency.py
python experiments/viewer_latency.py --model hornet_digits_iso --clicks 40

In Chromium, on the loopback address, everything included: the browser's event, Python, the drawing. A click finds the
forward pass cached; a photograph is uploaded, decoded, prepared, and passes through the model for the first time. While
a pointer moves over the picture the maps follow in the browser alone: from its event to the painted maps, as measured
there.
"""

import argparse
import io
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, sync_playwright
from viewer_process import CHROMIUM, FLAGS, Server

from horinsight.data.images import SAMPLES, sample_image


def painted(page: Page, ending: str) -> None:
    """Wait for the stamp that the maps get when they are painted."""
    page.locator(f".gallery[data-ready$='{ending}']").wait_for()


def clicks(page: Page, count: int) -> list[float]:
    """Seconds from each click to its maps."""
    generator = np.random.default_rng(0)
    picker = page.locator(".picker")
    box = picker.bounding_box()
    assert box is not None
    waits = []
    for row, col in generator.permutation(14 * 14)[:count, None] // np.array([14, 1]) % 14:
        position = {"x": box["width"] * (col + 0.5) / 14, "y": box["height"] * (row + 0.5) / 14}
        began = time.perf_counter()
        picker.click(position=position)  # type: ignore[arg-type]
        painted(page, f":{row}:{col}")
        waits.append(time.perf_counter() - began)
    return waits


def photographs(page: Page, count: int) -> list[float]:
    """Seconds from each upload to its maps."""
    page.get_by_text("Upload", exact=True).first.click()
    waits = []
    for number, name in zip(range(count), [*SAMPLES] * count, strict=False):
        picture = sample_image(name).resize((2000 + number, 1500))
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=90)
        shown = page.locator(".gallery[data-ready]")
        before = shown.get_attribute("data-ready") if shown.count() else ""
        began = time.perf_counter()
        page.locator("input[type=file]").set_input_files(
            {"name": f"{name}.jpg", "mimeType": "image/jpeg", "buffer": stream.getvalue()}
        )
        page.locator(f".gallery[data-ready]:not([data-ready='{before}'])").wait_for()
        waits.append(time.perf_counter() - began)
    return waits


def followed(page: Page, size: tuple[int, int], count: int) -> list[float]:
    """Seconds from each move of the pointer to its maps, as the page measures them."""
    generator = np.random.default_rng(0)
    page.locator(".tables[data-ready]").wait_for(state="attached")
    maps = page.locator(".gallery, .stack").first
    box = page.locator(".picker").bounding_box()
    assert box is not None
    waits = []
    for row, col in zip(*(generator.integers(extent, size=count) for extent in size), strict=True):
        x, y = (col + 0.5) / size[1] * box["width"], (row + 0.5) / size[0] * box["height"]
        page.mouse.move(box["x"] + x, box["y"] + y)
        page.locator(f"[data-followed='{row}:{col}']").wait_for()
        waits.append(float(maps.get_attribute("data-milliseconds") or "nan") / 1000)
    page.mouse.move(0, 0)
    return waits


def received_by(page: Page) -> list[int]:
    """Sizes of the messages that a page's socket gets from now on; Streamlit's own files are not counted."""
    sizes: list[int] = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda content: sizes.append(len(content))))
    return sizes


def told(what: str, waits: list[float]) -> None:
    print(f"{what}: median {np.median(waits):.3f} s, longest {max(waits):.3f} s, of {len(waits)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="hornet_s_iso")
    parser.add_argument("--clicks", type=int, default=20)
    parser.add_argument("--moves", type=int, default=100)
    parser.add_argument("--photographs", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = Server(Path(folder) / "log")
        browser = playwright.chromium.launch(executable_path=CHROMIUM or shutil.which("chrome"), args=FLAGS)
        try:
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto(f"{server.url}/?model={arguments.model}&image=chelsea&row=0&col=0")
            painted(page, ":0:0")
            told("from a move of the pointer to its maps", followed(page, (14, 14), arguments.moves))
            told("from a click to new maps", clicks(page, arguments.clicks))
            told("from a new photograph to its maps", photographs(page, arguments.photographs))
            page.goto(f"{server.url}/?model=hornet_tiny_7x7&image=chelsea&blocks=1&blocks=2&row=0&col=0")
            painted(page, ":0:0")
            told("hornet_tiny_7x7, two maps of 56x56: pointer to maps", followed(page, (56, 56), arguments.moves))
            for name, size in ((arguments.model, 14), ("hornet_tiny_7x7", 56)):
                page = browser.new_page(viewport={"width": 1440, "height": 900})
                received = received_by(page)
                page.goto(f"{server.url}/blocks?model={name}&image=chelsea&row=0&col=0")
                page.locator(".stack[data-ready]").wait_for()
                page.locator(".tables[data-ready]").wait_for(state="attached")
                print(
                    f"{name}, all blocks: the server sent {sum(received) / 2**20:.2f} MB until maps follow the pointer"
                )
                told(
                    f"{name}, all blocks and the rollout: pointer to maps",
                    followed(page, (size, size), arguments.moves),
                )
                page.close()
        finally:
            browser.close()
            server.stop()


if __name__ == "__main__":
    main()
