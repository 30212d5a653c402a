"""A running viewer, and somebody who visits it."""

import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
# Streamlit looks for its server below the page's path first: two refusals on each page but the first
PROBE = re.compile(r"/(blocks|spectra|attribution|cost|compare)/_stcore/(health|host-config)$")


def memory_mb(process_id: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{process_id}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found.group(1)) / 1024 if found else 0.0


class Server:
    """A running viewer.

    Args:
        log: file that takes what it prints.
        *arguments: of the viewer.
        base: path below which it serves.
        command: whether `horinsight viewer` starts it, instead of `streamlit run apps/viewer.py`.
    """

    def __init__(self, log: Path, *arguments: str, base: str = "", command: bool = False) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.log, self.url = log, f"http://127.0.0.1:{port}" + (f"/{base}" if base else "")
        options = ["--server.port", str(port), "--server.address", "127.0.0.1"]
        options += ["--server.baseUrlPath", base] if base else []
        started = ["streamlit", "run", str(ROOT / "apps" / "viewer.py"), *options, "--", *arguments]
        if command:
            started = ["horinsight", "viewer", "--port", str(port), *arguments]
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *started], cwd=log.parent, stdout=file, stderr=subprocess.STDOUT
            )
        for _ in range(600):
            assert self.process.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=1)
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise AssertionError(f"The viewer did not start: {log.read_text()}")

    def memory_mb(self) -> float:
        """Resident memory."""
        return memory_mb(self.process.pid)

    def stop(self) -> None:
        """End it, and look into its log."""
        self.process.terminate()
        self.process.wait(20)
        assert "Traceback" not in self.log.read_text(), self.log.read_text()


class Visitor:
    """A browser context that remembers what a page must not do."""

    def __init__(self, browser, own: str, **options) -> None:
        self.context = browser.new_context(
            accept_downloads=True, **{"viewport": {"width": 1280, "height": 720}, **options}
        )
        self.context.set_default_timeout(30_000)
        self.own, self.outside, self.errors = own, [], []

    def page(self, address: str = ""):
        """Open a page."""
        page = self.context.new_page()
        host = "/".join(self.own.split("/")[:3])
        allowed = (host, host.replace("http", "ws"), "data:", "blob:")
        page.on("request", lambda r: None if r.url.startswith(allowed) else self.outside.append(r.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._console)
        page.goto(self.own + address)
        return page

    def _console(self, message) -> None:
        if message.type == "error" and not PROBE.search(message.location.get("url", "")):
            self.errors.append(f"{message.text} {message.location}")

    def close(self) -> None:
        """No request left the server, and nothing failed."""
        self.context.close()
        assert not self.outside
        assert not self.errors


def wait_until(page, expression: str, seconds: float = 30) -> None:
    """Wait until an expression holds on a page; `wait_for_function` would evaluate it where the policy forbids that."""
    for _ in range(int(seconds * 20)):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"not within {seconds} s: {expression}")
