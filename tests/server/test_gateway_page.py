"""The page in a browser, in front of the checkpoints that ship. Screenshots go to build/page/."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Dialog, Page, Route, expect, sync_playwright

from ofa_server.evaluation.boxes import overlap
from tests.server.gateway_process import GatewayProcess

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "samples"
SCREENSHOTS = ROOT / "build" / "page"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
#: For answers on a machine that does other things meanwhile.
TIMEOUT_MS = 120_000
DESKTOP = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 844}
APPLE = "a_cookie_to_the_left_of_a_red_apple.jpg"
#: Where `training.samples` drew the apple, in pixels.
DRAWN_APPLE = (219, 46, 360, 189)

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on PATH; on Debian: apt-get install chromium"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            # Chromium's sandbox cannot be had by root, which a container's user mostly is.
            chromium_sandbox=os.geteuid() != 0,
        )
        expect.set_options(timeout=TIMEOUT_MS)
        yield browser
        browser.close()


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def page(
    request: pytest.FixtureRequest, browser: Browser, gateway: GatewayProcess
) -> Iterator[Page]:
    """The page with its models found; it may say nothing to the console and ask nobody else."""
    page = browser.new_page(viewport=request.param)
    page.set_default_timeout(TIMEOUT_MS)
    complaints: list[str] = []
    addresses: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda sent: addresses.append(sent.url))
    page.goto(gateway.url)
    expect(page.locator("#tasks label").first).to_be_visible()
    yield page
    own = (gateway.url, f"blob:{gateway.url}", "data:image/")
    assert [address for address in addresses if not address.startswith(own)] == []
    assert complaints == []
    page.close()


def take_screenshot(page: Page, request: pytest.FixtureRequest) -> Image.Image:
    """Keeps the whole page as it looks now, for people."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    name = request.node.name.removeprefix("test_").replace("[", "_").removesuffix("]")
    taken = page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
    return Image.open(io.BytesIO(taken)).convert("RGB")


def choose(page: Page, name: str) -> None:
    page.locator("label").filter(has=page.locator("input[type=radio]")).get_by_text(
        name, exact=True
    ).click()


def sample(page: Page, file: str) -> Any:
    return page.locator(f"#samples button[name='{file}']")


def first_result(page: Page) -> Any:
    return page.locator("#results li .said").first


def test_a_sample_is_captioned_in_both_languages(
    page: Page, request: pytest.FixtureRequest
) -> None:
    sample(page, "a_bear.jpg").click()
    expect(first_result(page)).to_have_text("a bear")
    score = page.locator("#results li .score").first.inner_text()
    assert -0.1 < float(score) <= 0
    expect(page.locator(".facts")).to_contain_text("ms")
    take_screenshot(page, request)
    choose(page, "中文")
    expect(first_result(page)).to_have_text("图片里有熊")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_question_is_answered(page: Page, request: pytest.FixtureRequest) -> None:
    choose(page, "Question")
    sample(page, "an_ambulance_to_the_left_of_a_doughnut.jpg").click()
    expect(first_result(page)).to_have_text("an ambulance")
    page.locator("#text1").fill("how many things are there?")
    page.locator("#text1").press("Enter")
    expect(first_result(page)).to_have_text("two")
    take_screenshot(page, request)


def test_the_box_is_painted_where_the_thing_is(page: Page, request: pytest.FixtureRequest) -> None:
    choose(page, "Find")
    sample(page, APPLE).click()
    expect(page.locator("#boxes rect.box:not(.under)")).to_have_count(1)
    screenshot = np.asarray(take_screenshot(page, request)).astype(int)
    # The picture fills the stage's height or width, in its middle.
    stage = page.locator("#image").bounding_box()
    assert stage is not None
    scroll = page.evaluate("scrollY")
    with Image.open(SAMPLES / APPLE) as picture:
        scale = min(stage["width"] / picture.width, stage["height"] / picture.height)
        left = stage["x"] + (stage["width"] - scale * picture.width) / 2
        top = stage["y"] + scroll + (stage["height"] - scale * picture.height) / 2
    mark = (0xFF, 0x5A, 0x36)
    rows, columns = np.nonzero(np.abs(screenshot - mark).sum(axis=-1) < 8)
    found = np.array(
        [columns.min() - left, rows.min() - top, columns.max() - left, rows.max() - top]
    )
    assert overlap(tuple(found / scale), DRAWN_APPLE) > 0.5


def test_words_on_a_sign_are_read(page: Page) -> None:
    choose(page, "Read text")
    sample(page, "sign_dragon.jpg").click()
    expect(first_result(page)).to_have_text("dragon")


def test_labels_have_their_probabilities(page: Page, request: pytest.FixtureRequest) -> None:
    sample(page, "a_bear.jpg").click()
    choose(page, "Classify")
    expect(first_result(page)).to_have_text("bear")
    expect(page.locator("#results li")).to_have_count(5)
    expect(page.locator("#results li .score").first).to_contain_text("%")
    take_screenshot(page, request)


def test_a_text_needs_no_picture(page: Page, request: pytest.FixtureRequest) -> None:
    choose(page, "Compare texts")
    expect(page.locator("#stage")).to_be_hidden()
    page.locator("#ask").click()
    expect(first_result(page)).not_to_be_empty()
    take_screenshot(page, request)


def test_only_what_is_ready_is_offered(page: Page) -> None:
    offered = page.locator("#tasks label").all_inner_texts()
    assert "Summarize" in offered
    assert "Draw" not in offered


def test_a_picture_of_one_s_own_is_captioned(page: Page) -> None:
    page.locator("#file").set_input_files(SAMPLES / "french_fries.jpg")
    expect(first_result(page)).to_have_text("french fries")
    expect(page.locator("#about")).to_contain_text("360 × 360 px")  # noqa: RUF001


def test_a_picture_over_the_limits_is_scaled_down(page: Page) -> None:
    with Image.open(SAMPLES / "french_fries.jpg") as picture:
        file = io.BytesIO()
        picture.resize((4000, 4000)).save(file, "JPEG")
    page.locator("#file").set_input_files(
        {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": file.getvalue()}
    )
    expect(first_result(page)).to_have_text("french fries")
    expect(page.locator("#about")).to_contain_text("3,000 × 3,000 px")  # noqa: RUF001
    expect(page.locator("#about")).to_contain_text("scaled down here from 4,000 × 4,000")  # noqa: RUF001


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_picture_can_be_dropped_and_pasted(page: Page, way: str) -> None:
    image_bytes = list((SAMPLES / "french_fries.jpg").read_bytes())
    page.evaluate(
        """([way, bytes]) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "fries.jpg", { type: "image/jpeg" }));
          const event = way === "drop"
            ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
            : new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
          document.getElementById("stage").dispatchEvent(event);
        }""",
        [way, image_bytes],
    )
    expect(first_result(page)).to_have_text("french fries")


def test_what_is_no_picture_is_refused_in_words(page: Page, request: pytest.FixtureRequest) -> None:
    page.locator("#file").set_input_files(
        {"name": "notes.png", "mimeType": "image/png", "buffer": b"not a picture"}
    )
    message = page.locator("#message")
    expect(message).to_contain_text("This picture cannot be used")
    expect(message).to_contain_text("Image cannot be read")
    expect(page.locator("#results")).to_be_hidden()
    take_screenshot(page, request)


def test_a_busy_server_is_told_from_a_bad_picture(
    page: Page, request: pytest.FixtureRequest
) -> None:
    def refuse(route: Route) -> None:
        error = {"code": "overloaded", "message": "too many requests are waiting"}
        route.fulfill(status=429, headers={"Retry-After": "2"}, body=json.dumps({"error": error}))

    page.route("**/v1/captions", refuse)
    sample(page, "a_bear.jpg").click()
    message = page.locator("#message")
    expect(message).to_contain_text("The server is busy")
    expect(message).to_contain_text("Ask again in 2 seconds")
    take_screenshot(page, request)
    page.unroute("**/v1/captions")
    page.locator("#ask").click()
    expect(first_result(page)).to_have_text("a bear")
    expect(message).to_be_hidden()


def test_all_of_it_goes_by_keyboard(page: Page) -> None:
    page.locator("#file").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == page.locator(
        "#samples button"
    ).first.get_attribute("name")
    page.keyboard.press("Enter")
    expect(first_result(page)).to_have_text("an ambulance to the left of a doughnut")
    page.locator("#tasks input:checked").focus()
    page.keyboard.press("ArrowRight")
    expect(first_result(page)).to_have_text("an ambulance")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "text1":
            break
    page.keyboard.press("ControlOrMeta+A")
    page.keyboard.type("how many things are there?")
    page.keyboard.press("Enter")
    expect(first_result(page)).to_have_text("two")


def test_the_page_is_dark_where_the_machine_is(
    browser: Browser, gateway: GatewayProcess, request: pytest.FixtureRequest
) -> None:
    page = browser.new_page(viewport=DESKTOP, color_scheme="dark")
    page.set_default_timeout(TIMEOUT_MS)
    page.goto(gateway.url)
    sample(page, APPLE).click()
    expect(first_result(page)).to_be_visible()
    dark = np.asarray(take_screenshot(page, request))
    assert np.median(dark) < 60
    page.close()


def test_the_api_page_needs_nobody_else(page: Page) -> None:
    page.goto(f"{page.url}docs")
    expect(page.locator(".opblock").first).to_be_visible()


def test_a_token_is_asked_for_where_one_is_needed(page: Page) -> None:
    def answer(route: Route) -> None:
        if route.request.headers.get("authorization") == "Bearer t0ken":
            route.continue_()
        else:
            route.fulfill(status=401, body='{"error": {"message": "a token is needed"}}')

    asked: list[str] = []

    def give(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.accept("wrong" if len(asked) == 1 else "t0ken")

    page.route("**/v1/**", answer)
    page.on("dialog", give)
    page.reload()
    sample(page, "a_bear.jpg").click()
    expect(first_result(page)).to_be_visible()
    assert asked == ["This gateway asks for a token."] * 2
    assert 'Bearer $TOKEN"' in page.locator("#results pre").text_content()
    page.unroute("**/v1/**")


def test_a_gateway_without_models_says_so(page: Page) -> None:
    page.route("**/v1/models", lambda route: route.fulfill(status=503, body='{"error": {}}'))
    page.reload()
    expect(page.locator("#status")).to_have_text("The model server is not available")
    expect(page.locator("#ask")).to_be_disabled()
    page.unroute("**/v1/models")
    expect(page.locator("#tasks label").first).to_be_visible()
