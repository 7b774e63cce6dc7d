"""What the page does, without the page: checked input to a sentence and pictures, errors as sentences."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from PIL import Image

from mmpt.configuration.errors import MmptError
from mmpt.example.loading import ExampleScene
from mmpt.explanations.explanation import Explanation, class_names_of, explain
from mmpt.explanations.figures import (
    draw_attention,
    draw_explanation,
    draw_grounding,
    draw_masked_regions,
    draw_ranking,
    draw_relevance,
)
from mmpt.inference.model_functions import FUNCTIONS, OBJECTIVES_READ
from mmpt.inference.pipeline import MmptPipeline
from mmpt.inference.region_picture import draw_regions
from mmpt.modeling_mmpt.modeling_pretraining import MmptForPreTraining
from mmpt.processing.regions import Regions

Shown = tuple[str, Image.Image | None]
"""A text in Markdown, and a picture."""

MOST_PIXELS = 40_000_000
MOST_LETTERS = 1000


class Unusable(Exception):
    """Input that the page answers with a sentence."""


def friendly(function: Callable[..., Shown]) -> Callable[..., Shown]:
    """Answer bad input with the sentence of its error."""

    @wraps(function)
    def answer(*arguments: Any) -> Shown:
        try:
            return function(*arguments)
        except (Unusable, MmptError, OSError) as error:
            return f"⚠ {error}", None

    return answer


class DemoModel:
    """A model with the sample scenes, as the functions of the page.

    Args:
        pipeline: of any model.
        scenes: samples whose regions the model reads; empty for a model of other regions.
    """

    def __init__(self, pipeline: MmptPipeline, scenes: Sequence[ExampleScene]) -> None:
        self.pipeline = pipeline
        self.scenes = {f"scene {number + 1}": scene for number, scene in enumerate(scenes)}

    def has(self, function: str) -> bool:
        """Return whether the model has a function of the pipeline."""
        model = self.pipeline.model
        needed = OBJECTIVES_READ.get(function) if isinstance(model, MmptForPreTraining) else None
        return isinstance(model, FUNCTIONS[function]) and (needed is None or needed in model.config.objective_weights)

    def image(self, sample: str | None, upload: Image.Image | None) -> tuple[Regions, Image.Image]:
        """Return the regions and the picture of a sample, or of an uploaded image, which counts if there is one.

        Raises:
            Unusable: if there is neither, or the image is too large.
            ValueError, OSError: if the model has no extractor for pictures.
        """
        if upload is not None:
            if upload.width * upload.height > MOST_PIXELS:
                raise Unusable(f"The image has {upload.width} x {upload.height} pixels; at most 40 million are taken.")
            return self.pipeline(upload.convert("RGB")), upload.convert("RGB")
        if sample not in self.scenes:
            raise Unusable("Choose a sample, or upload an image.")
        scene = self.scenes[sample]
        return scene.regions, scene.image

    def text_of(self, sample: str | None, masked: bool) -> str:
        """Return the caption of a sample, with its mask or with the word that stood there; empty without one."""
        if sample not in self.scenes:
            return ""
        scene = self.scenes[sample]
        return scene.text if masked else scene.text.replace("[MASK]", scene.word)

    @friendly
    def show_regions(self, sample: str | None, upload: Image.Image | None) -> Shown:
        """Draw the regions that the model reads."""
        regions, picture = self.image(sample, upload)
        names = class_names_of(self.pipeline.processor.image_processor.extracted_by)
        return f"{len(regions)} regions", draw_regions(regions, picture, names, side=480)

    @friendly
    def answer(self, text: str, sample: str | None, upload: Image.Image | None) -> Shown:
        """Say what the model was made for: a masked word, an answer, a class, a match."""
        found = self._explain(text, sample, upload)
        rows = "\n".join(f"| {name} | {probability:.3f} |" for name, probability in found.answers)
        return f"| answer | probability |\n| --- | --- |\n{rows}", draw_explanation(
            found, self.image(sample, upload)[1]
        )

    @friendly
    def match(self, text: str, sample: str | None, upload: Image.Image | None) -> Shown:
        """Say whether text and image belong together."""
        regions, picture = self.image(sample, upload)
        score = self.pipeline.match(_checked(text), regions)
        return f"Probability that text and image match: **{score:.3f}**", picture

    @friendly
    def ground(self, text: str, sample: str | None, upload: Image.Image | None) -> Shown:
        """Point at the region that an expression means."""
        regions, picture = self.image(sample, upload)
        found = self.pipeline.ground(_checked(text), regions)
        return f"Region {found[0]['region']}: **{found[0]['score']:.3f}**", draw_grounding(
            found, regions, text, picture
        )

    @friendly
    def rank(self, text: str) -> Shown:
        """Order the samples by how well they fit a text."""
        scenes = list(self.scenes.values())
        if not scenes:
            raise Unusable("Ranking needs sample images of this model's regions; there are none.")
        found = self.pipeline.rank_images(_checked(text), [scene.regions for scene in scenes])
        pictures = [scenes[each["index"]].image for each in found]
        best = list(self.scenes)[found[0]["index"]]
        return f"Best: **{best}**", draw_ranking(text, pictures, [each["score"] for each in found])

    @friendly
    def modalities(self, text: str, sample: str | None, upload: Image.Image | None) -> Shown:
        """Say what text and image say by themselves."""
        found = self._explain(text, sample, upload)
        if not found.decisions:
            raise Unusable("This model has early fusion: text and image make one decision together.")
        names = {"both": "both", "text": "the text alone", "regions": "the image alone"}
        rows = "\n".join(
            f"| {names[who]} | {said[0][0]} | {said[0][1]:.3f} | {weight:.2f} |"
            for who, (said, weight) in found.decisions.items()
        )
        return f"| who | says | probability | weight |\n| --- | --- | --- | --- |\n{rows}", None

    @friendly
    def why(self, kind: str, text: str, sample: str | None, upload: Image.Image | None) -> Shown:
        """Draw an explanation: one of `EXPLANATIONS`."""
        found = self._explain(text, sample, upload)
        picture = self.image(sample, upload)[1]
        return EXPLANATIONS[kind][0], EXPLANATIONS[kind][1](found, picture)

    def _explain(self, text: str, sample: str | None, upload: Image.Image | None) -> Explanation:
        return explain(self.pipeline, _checked(text), self.image(sample, upload)[0])


EXPLANATIONS: dict[str, tuple[str, Callable[[Explanation, Any], Image.Image]]] = {
    "region ablation": ("Exact: the answer with each region's feature set to zero.", draw_explanation),
    "relevance": ("An estimate: gradient-weighted attention (Chefer et al. 2021).", draw_relevance),
    "attention": ("Attention of words to regions, by layer and head.", lambda found, _: draw_attention(found)),
    "masked regions": ("What MRC, MRC-KL and MRFR predict for each region, masked by itself.", draw_masked_regions),
}
"""The explanations of the page: what each says, and what draws it."""


def _checked(text: str | None) -> str:
    """Return a text that is none too short and none too long.

    Raises:
        Unusable: otherwise.
    """
    if not text or not text.strip():
        raise Unusable("Write a text first.")
    if len(text) > MOST_LETTERS:
        raise Unusable(f"The text has {len(text)} characters; at most {MOST_LETTERS} are taken.")
    return text.strip()
