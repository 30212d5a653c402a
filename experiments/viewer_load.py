"""Fifty visitors at once, each with a photograph of their own: are all served, does the server stay well?

python experiments/viewer_load.py
python experiments/viewer_load.py --sessions 60 --megapixels 2 --memory 4 --models hornet_s_iso hornet_tiny_7x7 test_vit

Starts the viewer on the loopback address and speaks to it as a browser does (web socket, upload, widget states), but
draws nothing. Printed: how many were served, told "busy, try again", or dropped; how long they waited; the slowest
answer of the health address meanwhile; the peak memory of the server.
"""

import argparse
import asyncio
import io
import sys
import tempfile
import time
from collections import Counter
from multiprocessing import Event, Process, Queue
from pathlib import Path

import numpy as np
import requests
from PIL import Image
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from viewer_process import Server, memory_mb
from websockets.asyncio.client import ClientConnection, connect

from horinsight.data.images import sample_image

PATIENCE = 180  # seconds after which a visitor counts as dropped


def photograph(number: int, megapixels: float) -> bytes:
    """A JPEG like no other: a real photograph, enlarged, with a mark."""
    height = int((megapixels * 1e6 * 3 / 4) ** 0.5)
    image = sample_image("coffee").resize((height * 4 // 3, height))
    pixels = np.asarray(image).copy()
    pixels[:8, :8] = (number * 37 % 256, number * 91 % 256, number % 256)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=85)
    return stream.getvalue()


class Session:
    """One visitor's connection."""

    def __init__(self, socket: ClientConnection, query: str) -> None:
        self.socket, self.query = socket, query
        self.session_id = ""
        self.page = ""

    async def until_finished(self) -> list[ForwardMsg]:
        """What the server sends up to the end of a run."""
        messages = []
        while True:
            message = ForwardMsg.FromString(await self.socket.recv())
            kind = message.WhichOneof("type")
            if kind == "new_session":
                self.session_id = message.new_session.initialize.session_id
                self.page = message.new_session.page_script_hash
            messages.append(message)
            if kind in ("script_finished", "file_urls_response"):
                return messages

    async def run(self, **states: object) -> list[ForwardMsg]:
        """Ask for a run with the states of widgets."""
        back = BackMsg()
        back.rerun_script.query_string = self.query
        back.rerun_script.page_script_hash = self.page
        for widget, state in states.items():
            back.rerun_script.widget_states.widgets.add(id=widget, file_uploader_state_value=state)
        await self.socket.send(back.SerializeToString())
        return await self.until_finished()

    async def file_urls(self, name: str) -> tuple[str, object]:
        """Where a file may be put."""
        back = BackMsg()
        back.file_urls_request.request_id = "1"
        back.file_urls_request.session_id = self.session_id
        back.file_urls_request.file_names.append(name)
        await self.socket.send(back.SerializeToString())
        (urls,) = (await self.until_finished())[-1].file_urls_response.file_urls
        return urls.file_id, urls


def elements(messages: list[ForwardMsg], kind: str) -> list[object]:
    """The elements of a kind that a run made."""
    made = (message.delta.new_element for message in messages if message.WhichOneof("type") == "delta")
    return [getattr(element, kind) for element in made if element.WhichOneof("type") == kind]


async def visitor(
    number: int, server: Server, model: str, megapixels: float, start: asyncio.Event
) -> tuple[str, float]:
    """Come, wait for the others, upload a photograph, wait for the maps."""
    content = await asyncio.to_thread(photograph, number, megapixels)
    address = server.url.replace("http", "ws") + "/_stcore/stream"
    async with connect(address, subprotocols=["streamlit"], max_size=None, ping_interval=None) as socket:  # type: ignore[list-item]
        session = Session(socket, f"model={model}&source=Upload&row=5&col=6")
        (uploader,) = elements(await session.run(), "file_uploader")
        await start.wait()
        began = time.monotonic()
        file_id, urls = await session.file_urls(f"photo{number}.jpg")
        await asyncio.to_thread(put, server, urls.upload_url, f"photo{number}.jpg", content)  # type: ignore[attr-defined]
        from streamlit.proto.Common_pb2 import FileUploaderState

        state = FileUploaderState()
        state.uploaded_file_info.add(name=f"photo{number}.jpg", size=len(content), file_id=file_id, file_urls=urls)
        found = await session.run(**{uploader.id: state})  # type: ignore[attr-defined]
        waited = time.monotonic() - began
        components = [one.json for one in elements(found, "bidi_component")]  # type: ignore[attr-defined]
        alerts = [one.body for one in elements(found, "html") if 'class="told' in one.body]  # type: ignore[attr-defined]
        if any('"panels"' in one for one in components):
            return "served", waited
        if any("try again" in one for one in alerts):
            return "told to try again", waited
        return f"neither: {alerts}", waited


def put(server: Server, url: str, name: str, content: bytes) -> None:
    """Upload as a browser does, with the token of its cookie."""
    with requests.Session() as http:
        http.get(f"{server.url}/_stcore/health", timeout=60)
        token = http.cookies.get("_streamlit_xsrf", "")
        answer = http.put(
            server.url + url, files={"file": (name, content)}, headers={"X-Xsrftoken": token}, timeout=PATIENCE
        )
        answer.raise_for_status()


def watch(url: str, process_id: int, stop: Event, found: "Queue[tuple[float, float, float]]") -> None:
    """In a process of its own: slowest answer of the health address, when that was, and peak memory in MB."""
    slowest = when = most = 0.0
    first = time.monotonic()
    while not stop.is_set():
        began = time.monotonic()
        requests.get(f"{url}/_stcore/health", timeout=60)
        took = time.monotonic() - began
        if took > slowest:
            slowest, when = took, began - first
        most = max(most, memory_mb(process_id))
        time.sleep(0.05)
    found.put((slowest, when, most))


async def measure(server: Server, arguments: argparse.Namespace) -> bool:
    """All visitors; whether all is well."""
    start, stop, found = asyncio.Event(), Event(), Queue()
    models = arguments.models
    before = server.memory_mb()

    async def one(number: int) -> tuple[str, float]:
        try:
            return await asyncio.wait_for(
                visitor(number, server, models[number % len(models)], arguments.megapixels, start), PATIENCE + 60
            )
        except Exception as error:
            return f"dropped: {type(error).__name__} {error}", float("nan")

    tasks = [asyncio.create_task(one(number)) for number in range(arguments.sessions)]
    await asyncio.sleep(arguments.settle)
    watching = Process(target=watch, args=(server.url, server.process.pid, stop, found))
    watching.start()
    began = time.monotonic()
    start.set()
    results = await asyncio.gather(*tasks)
    took = time.monotonic() - began
    stop.set()
    slowest, when, most = found.get()
    watching.join()
    counts = Counter(outcome for outcome, _ in results)
    waits = [waited for outcome, waited in results if outcome == "served"]
    print(f"{arguments.sessions} sessions on {len(models)} models, each with {arguments.megapixels:g} megapixels")
    for outcome, count in counts.items():
        print(f"  {outcome}: {count}")
    if waits:
        print(f"  waited: median {np.median(waits):.1f} s, longest {max(waits):.1f} s; all done after {took:.1f} s")
    print(f"  slowest answer of the health address: {slowest:.2f} s, {when:.1f} s after the start")
    print(f"  memory of the server: {before:.0f} MB before, {most:.0f} MB at its peak")
    return set(counts) <= {"served", "told to try again"} and slowest < 1 and most < 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--megapixels", type=float, default=12)
    parser.add_argument("--models", nargs="+", default=["hornet_s_iso"], help="of the visitors, in turn")
    parser.add_argument("--memory", help="gigabytes that the viewer is given")
    parser.add_argument("--settle", type=float, default=60, help="seconds for all to come before they upload at once")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        given = () if arguments.memory is None else ("--memory", arguments.memory)
        server = Server(Path(folder) / "log", *given)
        try:
            well = asyncio.run(measure(server, arguments))
        finally:
            server.stop()
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
