"""A viewer on a public address: hostile links and files, broken weights, whatever nobody foresaw, a lost server."""

import asyncio
import html
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import pytest
import torch
from conftest import NAN_WEIGHTS
from streamlit.testing.v1 import AppTest
from test_browser import click_cell, hostile_free_png, ready
from viewer_process import Server, Visitor, wait_until

import horinsight
from horinsight.cli.viewer_command import viewer_arguments
from horinsight.operators.differentiable import check_apart
from horinsight.viewer.service.security_headers import SecurityHeaders, content_policy, inline_hashes

VIEWER = str(Path(__file__).parents[2] / "apps" / "viewer.py")
LINK, IMAGE = "[click](http://evil.invalid/)", "![x](http://evil.invalid/x.png)"
PAGES = {"": "Mixing weights", "spectra": "Interaction spectra", "attribution": "Attribution", "cost": "Cost"}
PAGES |= {"compare": "Compare", "blocks": "All blocks"}
PAGES |= {"filters": "Filters", "results": "Results", "paper": "The paper", "classes": "Classes"}


def visit(**address: str) -> AppTest:
    at = AppTest.from_file(VIEWER, default_timeout=60)
    for name, value in address.items():
        at.query_params[name] = value
    return at.run()


def told(at: AppTest, kind: str) -> list[str]:
    pattern = rf'<div class="told {kind}"[^>]*>(.*?)</div>'
    return [html.unescape(words) for one in at.get("html") for words in re.findall(pattern, one.proto.body)]


def test_what_nobody_foresaw_is_one_line_and_a_traceback_in_the_log(monkeypatch, caplog):
    import horinsight.viewer.views.mixing as module

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret of the server")

    for name in ("mixed", "default_blocks"):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, broken)
            at = visit()
        assert not at.exception
        assert told(at, "error") == [
            "Something went wrong that this viewer did not foresee. Whoever runs it finds what it was in its log."
        ]
        assert caplog.records[-1].name == "horinsight.viewer"
        assert "secret of the server" in str(caplog.records[-1].exc_info[1])
        assert "secret" not in " ".join(one.proto.body for one in at.get("html"))


def test_a_model_without_mixing_weights_is_said_outside_of_the_menu(monkeypatch):
    def without(*_: object, **__: object) -> None:
        raise ValueError("No block of this model has mixing weights.")

    monkeypatch.setattr(horinsight, "model_mixing_weights", without)
    at = visit(image="rocket", blocks="2")
    assert told(at, "error") == ["No block of this model has mixing weights."]
    for menu in at.get("popover"):
        assert not any("told" in one.proto.body for one in menu.get("html"))


def test_an_operator_that_gives_no_numbers_is_refused_in_one_line():
    nan = torch.full((1, 3), torch.nan)
    for bad in (nan, torch.full((1, 3), torch.inf)):
        with pytest.raises(ValueError, match="whose output is finite, got NaN or infinity"):
            check_apart(torch.cat([bad, bad]), bad)
    for explicit in (True, False):
        with pytest.raises(ValueError, match="whose output is finite"):
            horinsight.interaction_spectrum(
                lambda x: (x.square() + 1).log() * 1e38 * 10, torch.randn(1, 4, 4, 4), explicit=explicit, max_order=1
            )
    model = horinsight.create_model("hornet_test", pretrained=False)
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="logits are finite"):
        horinsight.prediction_attribution(model, torch.randn(1, 3, 64, 64), methods=["saliency"])


@pytest.mark.parametrize(
    "address",
    [
        {"row": "14"}, {"col": "-1"}, {"row": "1.5"}, {"row": "٣"}, {"opacity": "nan"}, {"opacity": "1e400"},
        {"step": "9"}, {"channel": "99999999999"}, {"blocks": "x"}, {"colours": "jet"}, {"one_scale": "2"},
        {"source": "Disk"}, {"smooth": ""},
    ],
    ids=str,
)  # fmt: skip
def test_bad_values_of_an_address_are_told(address):
    ((name, value),) = address.items()
    expected = f"The link asks for {name} '{value}', which this viewer does not have: the default is shown instead."
    at = visit(**address)
    assert not at.exception
    assert told(at, "warning") == [expected]


def test_good_values_of_an_address_are_taken():
    at = visit(row="3", col="4", blocks="2", step="1", channel="7", opacity="0.3", smooth="true", grey="false")
    assert not told(at, "warning")
    state = {name: at.session_state[name] for name in ("row", "col", "blocks", "step", "channel", "opacity", "smooth")}
    assert state == {
        "row": 3, "col": 4, "blocks": [2], "step": "1", "channel": 7, "opacity": 0.3, "smooth": True,
    }  # fmt: skip
    assert at.session_state["grey"] is False


def test_the_policy_names_this_server_alone():
    page = "<script>a()</script><script type='module' src='./b.js'></script><script>\nc()\n</script>"
    assert len(inline_hashes(page)) == 2
    assert inline_hashes("<script>a() </script>") != inline_hashes(page)[:1]
    policy = content_policy(page)
    assert not re.search(r"https?:|\*|unsafe-eval|script-src[^;]*unsafe", policy)
    assert policy.startswith("default-src 'none'; ")


def test_headers_come_with_answers_and_sockets_pass():
    sent: list[dict] = []

    async def app(scope, receive, send):
        headers = [(b"content-type", b"text/html"), (b"Referrer-Policy", b"unsafe-url")]
        await send({"type": f"{scope['type']}.response.start", "status": 200, "headers": headers})
        await send({"type": f"{scope['type']}.response.body", "body": b""})

    async def send(message):
        sent.append(message)

    def answered(kind: str) -> None:
        with ThreadPoolExecutor(1) as pool:  # the tests' own thread may have a loop that runs: the browser's
            pool.submit(asyncio.run, SecurityHeaders(app)({"type": kind}, None, send)).result()

    answered("http")
    found = [(name.lower(), value) for name, value in sent[0]["headers"]]
    assert (b"x-content-type-options", b"nosniff") in found
    assert [value for name, value in found if name == b"referrer-policy"] == [b"no-referrer"]
    assert (b"content-type", b"text/html") in found
    answered("websocket")
    assert len(sent[2]["headers"]) == 2


def test_the_command_says_what_is_wrong_before_it_starts(run, tmp_path):
    assert run("viewer", "--port", "0")[0] == 2
    assert run("viewer", "--checkpoints", tmp_path / "nowhere")[0] == 2
    status, _, errors = run("viewer", "--host", "host.invalid")
    assert (status, errors.count("\n")) == (2, 1)
    assert "Cannot listen at host.invalid, port 8501" in errors
    status, _, errors = run("viewer", "--models", "hornet_huge")
    assert (status, "neither horinsight nor timm has hornet_huge" in errors) == (2, True)
    given = viewer_arguments("::1", 80, tmp_path, ("test_vit", "resnet18"), 2.5, images=tmp_path, results=tmp_path)
    assert given[given.index("--") + 1 :] == [
        "--checkpoints", str(tmp_path), "--images", str(tmp_path), "--results", str(tmp_path),
        "--models", "test_vit", "resnet18", "--memory", "2.5",
    ]  # fmt: skip
    assert Path(given[4]).name == "served.py"


# in a browser


def harmless(page) -> None:
    """Nothing on the page leads elsewhere, and nothing is coloured, set or drawn that was only a name."""
    assert page.locator("a[href*='evil']").count() == 0
    assert page.locator("img[src*='evil']").count() == 0
    assert page.locator(".stMarkdownColoredText, .stMarkdownBadge, .katex .mathbf").count() == 0


@pytest.mark.slow
def test_hostile_links_files_and_weights_do_nothing(visitor):
    asked = {"model": LINK, "image": IMAGE, "weights": ":red[x] www.evil.invalid", "row": "$\\mathbf x$"}
    for path, title in PAGES.items():
        more = {"model_b": IMAGE, "weights_b": LINK, "side": ":smile:", "max_order": "a@evil.invalid", "baseline": LINK}
        quick = {"ie_blocks": "1", "tuples": "2", "methods_class": "saliency"}
        page = visitor.page(f"/{path}?{urlencode(asked | more | quick)}")
        page.get_by_text(f"The link asks for model '{LINK}', weights ':red[x] www.evil.invalid'").wait_for()
        wait_until(page, f"document.title == '{title} · horinsight'")
        harmless(page)
        page.close()
    page = visitor.page(f"/?{urlencode({'weights': NAN_WEIGHTS})}")
    page.get_by_text(f"The weights {NAN_WEIGHTS} are not whole").wait_for()
    harmless(page)
    page.goto(visitor.own + "/?source=Upload")
    name = "![x](http:&#47;&#47;evil.invalid&#47;x.png)[l](&#104;ttp:&#47;&#47;evil.invalid) :red[r] $x$.png"
    page.locator("input[type=file]").set_input_files({"name": name, "mimeType": "image/png", "buffer": b"no picture"})
    page.locator(".told.error").get_by_text(name).wait_for()
    harmless(page)
    page.locator("input[type=file]").set_input_files(
        {"name": name, "mimeType": "image/png", "buffer": hostile_free_png()}
    )
    page.locator(".heading").get_by_text(name).wait_for()
    ready(page)
    harmless(page)


@pytest.mark.slow
def test_weights_that_overflow_are_said_on_the_page(visitor):
    for path, words in (
        ("", "features are NaN or infinite"),
        ("blocks", "NaN or infinite"),
        ("spectra?ie_blocks=1&tuples=2&", "NaN or infinity"),
    ):
        page = visitor.page(f"/{path}{'' if '?' in path else '?'}weights=huge.pth")
        page.locator(".told.error").get_by_text(re.compile(words)).first.wait_for()


@pytest.mark.slow
def test_back_undoes_one_choice_after_the_other(visitor):
    page = visitor.page("/?row=1&col=1")
    ready(page, ":1:1")
    before = page.evaluate("history.length")
    for row, col in ((3, 4), (5, 6), (8, 9)):
        click_cell(page, row, col)
        ready(page, f":{row}:{col}")
        page.wait_for_url(f"**/?row={row}&col={col}")
    page.get_by_role("link", name="Cost").click()
    page.get_by_text("13 of 13 hold").wait_for()
    page.locator(".stApp[data-test-script-state=notRunning]").wait_for()
    page.get_by_label("Image side, pixels").fill("96")
    page.get_by_label("Image side, pixels").press("Enter")
    page.wait_for_url("**/cost?side=96")
    assert page.evaluate("history.length") == before + 5, "three clicks, a page, a number"
    page.go_back()
    page.wait_for_url("**/cost")
    wait_until(page, "document.querySelector('.st-key-side input').value == ''")
    page.go_back()
    ready(page, ":8:9")
    for row, col in ((5, 6), (3, 4), (1, 1)):
        page.go_back()
        ready(page, f":{row}:{col}")
        assert page.get_by_label("Row, 0").input_value() == str(row)
    page.go_forward()
    ready(page, ":3:4")
    assert page.evaluate("history.length") == before + 5
    page.reload()
    ready(page, ":3:4")


@pytest.mark.slow
def test_the_command_serves_it_and_a_lost_server_is_told(browser, tmp_path):
    running = Server(tmp_path / "log", "--models", "test_vit", command=True)
    one = Visitor(browser, running.url)
    page = one.page("/cost")
    page.get_by_text("13 of 13 hold").wait_for()
    assert page.locator(".lost").is_hidden()
    answer = page.request.get(running.url + "/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    running.process.kill()
    page.get_by_text("The server does not answer").wait_for(timeout=3000)
    one.context.close()
    assert not one.outside
    assert "Traceback" not in running.log.read_text()
