"""What axe-core finds on every page of the viewer: light and dark, on a desktop and a telephone.

npm pack axe-core && tar xzf axe-core-*.tgz
python experiments/axe_pages.py package/axe.min.js

A violation is Streamlit's own where every element of it is drawn by Streamlit and by no HTML or component of ours.
Exit status 1 where one is ours.
"""

import argparse
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from viewer_process import CHROMIUM, FLAGS
from viewer_screenshots import PAGES, opened, started

SIZES = {"1440x900": (1440, 900), "390x844": (390, 844)}
# rules beside the WCAG's are axe's best practices; all of them run
RUN = """async () => {
  const found = await axe.run(document, {resultTypes: ['violations']});
  const ours = (node) => {
    const path = node.target.flat();
    if (path.length > 1) return true;  // inside of a shadow root: a component
    const element = document.querySelector(path[0]);
    return !!element && !!element.closest('[data-testid=stHtml], [data-testid=stBidiComponentRegular]');
  };
  return found.violations.map((one) => ({
    rule: one.id, impact: one.impact, help: one.help,
    nodes: one.nodes.map((node) => ({
      ours: ours(node), target: node.target.flat().join(' / '), html: node.html.slice(0, 160),
      why: (node.any[0] || node.all[0] || node.none[0] || {}).message,
    })),
  }));
}"""


def violations(page: Page, axe: str) -> list[dict]:
    """What axe finds on a page that is ready."""
    page.evaluate(axe)
    found: list[dict] = page.evaluate(RUN)
    return found


def told(where: str, found: list[dict], *, verbose: bool) -> int:
    """Print them; how many are ours."""
    number = 0
    for one in found:
        whose = "ours" if any(node["ours"] for node in one["nodes"]) else "Streamlit"
        number += whose == "ours"
        print(f"{where}: {whose}: {one['rule']} ({one['impact']}): {one['help']}, {len(one['nodes'])} times")
        for node in one["nodes"] if verbose else one["nodes"][:1]:
            print(f"    {node['target']}\n    {node['html']}\n    {node['why']}")
    return number


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("axe", type=Path, help="axe.min.js")
    parser.add_argument("--pages", nargs="+", default=list(PAGES), choices=list(PAGES))
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--themes", nargs="+", default=["light", "dark"], choices=["light", "dark"])
    parser.add_argument("--verbose", action="store_true", help="every element of a violation")
    arguments = parser.parse_args()
    axe, ours, visited = arguments.axe.read_text(encoding="utf-8"), 0, 0
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = started(Path(folder))
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            for theme in arguments.themes:
                for size in arguments.sizes:
                    width, height = SIZES[size]
                    context = browser.new_context(
                        viewport={"width": width, "height": height}, color_scheme=theme, bypass_csp=True
                    )
                    for name in arguments.pages:
                        page = opened(context, server.url, PAGES[name])
                        visited += 1
                        where = f"{name} {size} {theme}"
                        ours += told(where, violations(page, axe), verbose=arguments.verbose)
                        page.close()
                    context.close()
        finally:
            browser.close()
            server.stop()
    print(f"{visited} pages, violations of ours: {ours}")
    return 1 if ours else 0


if __name__ == "__main__":
    raise SystemExit(main())
