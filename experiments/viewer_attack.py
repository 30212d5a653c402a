"""An attack on the viewer: hostile addresses, names of files, weights that are no numbers, the largest measurements.

python experiments/viewer_attack.py                    # about ten minutes on two cores
python experiments/viewer_attack.py --seconds 20       # less of each of the largest measurements

Starts `horinsight viewer` on the loopback address and visits it with Chromium. Printed: how many addresses, uploads and
weights were tried; requests of the browser to other servers, links, pictures, colours and formulas that were made of
words from outside, violations of the policy, tracebacks in the log, which must all be 0; the server's peak memory.
"""

import argparse
import io
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlencode

import torch
from PIL import Image
from playwright.sync_api import Page, TimeoutError, sync_playwright
from viewer_process import CHROMIUM, FLAGS, Server, Visitor

import horinsight

OTHER = "evil.invalid"
HOSTILE = [
    f"[click](http://{OTHER}/)",
    f"![x](http://{OTHER}/x.png)",
    f"![x](http:&#47;&#47;{OTHER}&#47;x.png)",
    f"<img src=http://{OTHER}/x.png onerror=fetch('http://{OTHER}')>",
    f"<script src=http://{OTHER}/x.js></script>",
    f"http://{OTHER}/ www.{OTHER} a@{OTHER}",
    f"\\![x](//{OTHER}/x.png)\\[y](//{OTHER})",
    f"[x]: http://{OTHER}\n\n[x] ![x]",
    ":red[red] :red-badge[badge] :material/home: :smile: :streamlit: $x^2$ $$y$$",
    "\u202egnp.exe\u2066x\u200b\x07",
    "../../etc/passwd%00",
    "nan", "1e400", "-1", "99999999999999999999", "٣", "", "x" * 2000,
]  # fmt: skip
PARAMETERS = {
    "": [
        "row",
        "col",
        "blocks",
        "step",
        "channel",
        "colours",
        "opacity",
        "one_scale",
        "smooth",
        "grey",
        "over_pictures",
    ],
    "blocks": ["show", "depth", "rolled", "order", "orderings", "at_block", "row", "col", "one_scale"],
    "spectra": ["scope", "kind", "max_order", "tuples", "ie_blocks"],
    "attribution": ["explain", "methods_class", "methods_position", "baseline", "at_block", "row", "col"],
    "cost": ["side"],
    "filters": ["filter_block", "filter_step", "filter_order", "filter_page"],
    "classes": ["classes_from", "classes", "class_count", "class_survey", "row", "col"],
    "results": ["results_from", "result", "result_b", "by_class"],
    "paper": ["part"],
    "compare": ["compare", "model_b", "weights_b", "image_b", "row", "col", "colours", "opacity"],
}
EVERYWHERE = ["model", "weights", "image", "source"]
LARGEST = [
    "/spectra?model=hornet_large_gf&image=coffee&tuples=512&max_order=12&kind=functional&scope=block",
    "/spectra?model=swin_tiny_patch4_window7_224&image=coffee&tuples=512&max_order=12&scope=block",
    "/attribution?model=hornet_large_7x7&image=coffee&methods_class=shapley_value_sampling&methods_class=occlusion",
    "/?model=hornet_large_gf&image=coffee&over_pictures=true",
    "/compare?model=hornet_large_gf&model_b=hornet_large_7x7&image=coffee",
    "/blocks?model=hornet_large_gf&image=coffee",
    "/blocks?model=hornet_large_gf&image=coffee&show=Orders&at_block=1&orderings=64",
    "/cost?model=hornet_large_gf&side=2048",
]
MADE = (
    f"a[href*='{OTHER}'], img[src*='{OTHER}'], .stMarkdownColoredText, .stMarkdownBadge, .told .katex, .heading .katex"
)
ENDED = (
    ".told, .gallery[data-ready], .stack[data-ready], [data-testid=stVegaLiteChart], [data-testid=stProgress], .filters"
)


class Attack:
    """One visitor, and what came of the visits."""

    def __init__(self, visitor: Visitor) -> None:
        self.visitor, self.counts, self.made = visitor, Counter[str](), 0

    def seen(self, page: Page, what: str) -> None:
        """Count a visit, and what a page made of words from outside."""
        page.wait_for_timeout(200)
        self.counts[what] += 1
        self.made += page.locator(MADE).count()

    def address(self, path: str, value: str) -> None:
        """Every parameter of a page with one hostile value."""
        query = urlencode(dict.fromkeys([*EVERYWHERE, *PARAMETERS[path]], value))
        page = self.visitor.page(f"/{path}?{query}")
        page.locator(ENDED).first.wait_for(timeout=60_000)
        self.seen(page, "addresses")
        page.close()

    def upload(self, name: str, content: bytes) -> None:
        """A file of a hostile name."""
        page = self.visitor.page("/?source=Upload")
        chosen = {"name": name, "mimeType": "image/png", "buffer": content}
        page.locator("input[type=file]").set_input_files(chosen)
        page.locator(".told.error, .gallery[data-ready]").first.wait_for(timeout=60_000)
        self.seen(page, "uploads")
        page.close()

    def weights(self, path: str, name: str) -> None:
        """Weights that are no numbers, or become none."""
        page = self.visitor.page(f"/{path}?{urlencode({'weights': name})}")
        page.locator(".told.error").first.wait_for(timeout=120_000)
        self.seen(page, "weights")
        page.close()

    def largest(self, address: str, seconds: int) -> None:
        """As long as somebody waits who then closes the page."""
        page = self.visitor.page(address)
        words = re.compile(r"^(play_arrow)?(Measure \d|Ask \d)")
        start = page.locator("button").filter(has_text=words, visible=True)
        for _ in range(seconds):
            if start.count():
                with suppress(TimeoutError):  # pressed already: it is about to go
                    start.first.click(timeout=5000)
            page.wait_for_timeout(1000)
        self.seen(page, "largest measurements")
        page.close()


def weights_in(folder: Path) -> list[str]:
    """Files of weights that are no numbers, by their names."""
    state = horinsight.create_model("hornet_digits_iso", pretrained=False, seed=5).state_dict()
    first = next(iter(state))
    broken = {
        "nan.pth": {**state, first: torch.full_like(state[first], torch.nan)},
        "infinite.pth": {**state, first: torch.full_like(state[first], torch.inf)},
        "huge.pth": {name: tensor * 1e18 for name, tensor in state.items()},
        f"![x](http:&#47;&#47;{OTHER}&#47;x.png) :red[r].pth": {first: state[first]},
    }
    for name, content in broken.items():
        torch.save(content, folder / name)
    return list(broken)


def picture() -> bytes:
    """A small PNG."""
    stream = io.BytesIO()
    Image.new("RGB", (64, 64), "teal").save(stream, "PNG")
    return stream.getvalue()


def attacked(attack: Attack, weights: list[str], seconds: int, peak: Callable[[], float]) -> dict[str, float]:
    """Everything, one after the other; the server's peak memory in MB after each part."""
    peaks = {"at the start": peak()}
    for path in PARAMETERS:
        for value in HOSTILE:
            attack.address(path, value)
    peaks["addresses"] = peak()
    for value in HOSTILE[:11]:
        name = value.replace("/", "&#47;").replace("\n", " ")[:200] + ".png"
        attack.upload(name, b"not a picture")
        attack.upload(name, picture())
    peaks["uploads"] = peak()
    for path in ("", "spectra", "attribution", "compare"):
        for name in weights:
            attack.weights(path, name)
    peaks["weights"] = peak()
    for address in LARGEST:
        attack.largest(address, seconds)
        peaks[address] = peak()
    return peaks


def peak_mb(process_id: int) -> float:
    """The most memory that a process had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process_id}/status").read_text())
    return int(found.group(1)) / 1024 if found else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="of each of the largest measurements")
    parser.add_argument("--memory", default="2", help="gigabytes that the viewer is given")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name) / "weights"
        folder.mkdir()
        weights = weights_in(folder)
        log = Path(name) / "log"
        server = Server(log, "--checkpoints", str(folder), "--memory", arguments.memory, command=True)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            attack = Attack(Visitor(browser, server.url))
            peaks = attacked(attack, weights, arguments.seconds, lambda: peak_mb(server.process.pid))
        finally:
            browser.close()
            server.process.terminate()
            server.process.wait(30)
        tracebacks = len(re.findall("Traceback|did not foresee", log.read_text()))
    print("tried: " + ", ".join(f"{count} {what}" for what, count in attack.counts.items()))
    print(f"requests to other servers: {len(attack.visitor.outside)}")
    print(f"links, pictures, colours and formulas made of words from outside: {attack.made}")
    print(f"errors in the browser's console, violations of the policy among them: {len(attack.visitor.errors)}")
    print(f"tracebacks in the log: {tracebacks}")
    for part, peak in peaks.items():
        print(f"peak memory of the server after {part}: {peak:.0f} MB")
    failed = attack.visitor.outside or attack.visitor.errors or attack.made or tracebacks
    for one in [*attack.visitor.outside, *attack.visitor.errors][:10]:
        print(f"  {one}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
