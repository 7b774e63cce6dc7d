"""The page's functions with and without Gradio, and the page in a browser where there are Gradio and Chromium."""

import shutil
from typing import Any

import pytest
from PIL import Image

from mmpt import load_example
from mmpt.demo.functions import EXPLANATIONS, DemoModel
from tests.mmpt.explanations.test_explanations import of_task


@pytest.fixture(scope="module")
def demo() -> DemoModel:
    return DemoModel(*load_example())


def test_every_function_answers_about_a_sample(demo: DemoModel) -> None:
    scene = demo.scenes["scene 1"]
    words, picture = demo.answer(scene.text, "scene 1", None)
    assert f"| {scene.word} | 0.9" in words
    assert picture is not None
    assert demo.show_regions("scene 1", None)[0] == "3 regions"
    assert "**0." in demo.match(demo.text_of("scene 1", False), "scene 1", None)[0]
    assert demo.rank(demo.text_of("scene 2", False))[0] == "Best: **scene 2**"
    for kind in EXPLANATIONS:
        assert demo.why(kind, scene.text, "scene 1", None)[1] is not None


def test_bad_input_is_a_sentence(demo: DemoModel) -> None:
    small = Image.new("RGB", (9, 9))
    for words, picture in (
        demo.answer("  ", "scene 1", None),
        demo.match("x" * 1001, "scene 1", None),
        demo.match("a star", None, None),
        demo.show_regions(None, Image.new("1", (8000, 8000))),
        demo.show_regions(None, small),  # the packaged model's regions are not those of an extractor
        demo.modalities("a star", "scene 1", None),
    ):
        assert words.startswith("⚠ ")
        assert picture is None
    assert "Write a text first." in demo.answer("", "scene 1", None)[0]


def test_a_model_has_the_tabs_of_its_functions(demo: DemoModel) -> None:
    assert [name for name in ("fill_mask", "match", "answer", "ground") if demo.has(name)] == ["fill_mask", "match"]
    assert DemoModel(of_task("dual", "Grounding"), []).has("ground")


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
def test_a_person_asks_in_a_browser(demo: DemoModel) -> None:
    pytest.importorskip("gradio")
    from playwright.sync_api import sync_playwright

    from mmpt.demo.page import build_page, serve

    page = build_page(demo)
    address = serve(page, None)
    wrong: list[str] = []

    def note(request: Any) -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            wrong.append(request.url)

    try:
        with sync_playwright() as browsers:
            browser = browsers.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            tab = browser.new_page()
            tab.on("request", note)
            tab.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
            tab.goto(address, timeout=60_000)
            tab.get_by_text("3 regions").wait_for(timeout=60_000)
            tab.get_by_label("scene 2").check()
            tab.get_by_role("button", name="Ask").first.click()
            tab.get_by_role("cell", name="pink", exact=True).wait_for(timeout=60_000)
            tab.get_by_label("Text with [MASK]").fill("")
            tab.get_by_role("button", name="Ask").first.click()
            tab.get_by_text("Write a text first.").wait_for(timeout=60_000)
            browser.close()
    finally:
        page.close()
    assert wrong == []
