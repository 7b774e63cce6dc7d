"""The page itself, in Gradio (the extra `demo`)."""

import os
from collections.abc import Sequence
from typing import Any

from mmpt.configuration.errors import MmptImportError
from mmpt.demo.functions import EXPLANATIONS, DemoModel
from mmpt.explanations.decision import EXPLAINED

MOST_BYTES = "20mb"
LOOPBACK = "127.0.0.1"
BUTTONS = ["download", "fullscreen"]  # the third, share, would send the picture to another host


def build_page(demo: DemoModel) -> Any:
    """Return the page of a model: a tab for each thing that it does.

    Raises:
        ImportError: without Gradio.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # nothing is sent to another host
    try:
        import gradio  # type: ignore[import-not-found]
    except ImportError as error:
        raise MmptImportError("the demo is a Gradio page: pip install 'mmpt[demo,plots]'") from error
    samples = list(demo.scenes)
    mask = demo.pipeline.processor.tokenizer.mask_token
    with gradio.Blocks(title="mmpt", analytics_enabled=False) as page:
        gradio.Markdown(f"# mmpt\n`{type(demo.pipeline.model).__name__}`: text with the regions of an image.")
        with gradio.Row():
            with gradio.Column(scale=1, min_width=280):
                sample = gradio.Radio(samples, value=samples[0] if samples else None, label="Sample image")
                upload = gradio.Image(type="pil", sources=["upload"], label="Or your own image", height=220)
            with gradio.Column(scale=1, min_width=280):
                said = gradio.Markdown()
                seen = gradio.Image(
                    label="Regions that the model reads",
                    show_label=False,
                    interactive=False,
                    height=320,
                    buttons=BUTTONS,
                )
        for source in (sample, upload):
            source.change(demo.show_regions, [sample, upload], [said, seen], api_name=False)
        page.load(demo.show_regions, [sample, upload], [said, seen], api_name=False)

        def tab(
            name: str, label: str, function: Any, inputs: Any, choices: Sequence[str] = (), masked: bool = False
        ) -> None:
            """Add a tab: a text, in front of it what else is chosen, and what comes out."""
            with gradio.Tab(name):
                chosen = [gradio.Radio(list(choices), value=choices[0], label="Kind")] if choices else []
                text = gradio.Textbox(value=demo.text_of(sample.value, masked), label=label, lines=2)
                button = gradio.Button("Ask", variant="primary")
                words = gradio.Markdown()
                picture = gradio.Image(label=f"{name}: picture", show_label=False, interactive=False, buttons=BUTTONS)
                if demo.scenes:
                    sample.change(lambda each: demo.text_of(each, masked), sample, text, api_name=False)
                for event in (button.click, text.submit):
                    event(function, [*chosen, text, *inputs], [words, picture], api_name=False)

        inputs = [sample, upload]
        if demo.has("fill_mask"):
            tab("Masked words", f"Text with {mask}", demo.answer, inputs, masked=True)
        for function, name, label in (("answer", "Question", "Question"), ("classify", "Class", "Text")):
            if demo.has(function):
                tab(name, label, demo.answer, inputs)
        if demo.has("match"):
            tab("Match", "Text", demo.match, inputs)
            if demo.scenes:
                tab("Ranking", "Text", demo.rank, [])
        if demo.has("ground"):
            tab("Phrase to region", "Expression", demo.ground, inputs)
        if any(demo.has(function) for function in ("answer", "classify")):
            tab("What each modality says", "Text", demo.modalities, inputs)
        if any(demo.has(function) for function in EXPLAINED):
            masked = demo.has("fill_mask")
            tab("Explanations", "Text", demo.why, inputs, choices=list(EXPLANATIONS), masked=masked)
    return page


def serve(page: Any, port: int | None, host: str = LOOPBACK) -> str:
    """Serve a page in the background and return its address.

    Args:
        host: other machines reach the page only where this is not the loopback.
    """
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        max_file_size=MOST_BYTES,
        prevent_thread_lock=True,
        footer_links=[],
    )
    return address
