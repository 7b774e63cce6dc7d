"""The sections of a recipe, as dataclasses: model, data and masking; `task_section` has that of fine-tuning."""

from dataclasses import dataclass, field
from typing import Any, Literal

from mmpt.commands.annotation_options import READING, reader_options
from mmpt.recipe.task_section import SceneTaskSource

PRESETS = {
    "single": ("uniter", "visual_bert", "oscar", "volta_uniter", "volta_visual_bert"),
    "dual": ("vilbert", "lxmert", "volta_vilbert", "volta_lxmert"),
}
"""The predecessors whose architecture a recipe can ask for, by stream."""

READ_WITH_PAIRS = ("format", *READING, "eval_annotations", "eval_split")
"""Keys of `data` that say how tables are read."""

MASKING_SHARES = ("text", "regions", "itm")
"""Corruptions that a row can be assigned to under conditional masking."""


@dataclass
class ModelSection:
    """The model to train.

    Args:
        preset: the architecture of a predecessor (see `PRESETS`), which `config` changes.
        from_pretrained: folder or Hub name of weights to go on from.
        config: the fields of the stream's configuration class that the recipe sets; in YAML they stand in the section
            itself.
    """

    stream: Literal["single", "dual"] = "single"
    preset: str | None = None
    from_pretrained: str | None = None
    config: dict[str, Any] = field(default_factory=dict)


@dataclass
class GeneratedSource:
    """Scenes of shapes that the package draws itself.

    Args:
        statements: share of the scenes that statements are made about, beside their captions.
        partial_captions: share of the training captions that mention a part of the objects only.
        region_store: folder of a region store with what an extractor found in the scenes' images; None takes features
            of the true boxes.
    """

    train_scenes: int = 4000
    eval_scenes: int = 512
    seed: int = 0
    statements: float = 0.25
    partial_captions: float = 0.0
    region_store: str | None = None


@dataclass
class DataSection:
    """What to train on: either `generated` (a task: `scene_task`) or `store` with `pairs`.

    Args:
        store: folder of a region store.
        pairs: table of texts and image ids to train on.
        eval_pairs: the same to evaluate on.
        format: of both, one of `ANNOTATION_FORMATS`; null looks at what they hold.
        columns: our names by the tables' own: {headline: text, photo: image_id}.
        label_names: the words of the labels, in order.
        image_id_stem: take folders and ending off the images' ids.
        image_id_format: how the store's ids look: "COCO_train2014_{:012d}".
        annotations: the answers to the questions of VQA v2 in `pairs`.
        eval_annotations: those to the questions in `eval_pairs`.
        instances: the boxes of RefCOCO.
        split: the split of `pairs` to train on, where it has several.
        eval_split: that of `eval_pairs`.
        rationales: of VCR, choose the reason for the right answer, not the answer.
        allow_pickle: read pickled annotations, of which only lists, texts and numbers.
        encoding: of text files; null is UTF-8, or what a byte order mark names.
        separator: of the columns of a CSV; null takes what its header tells.
        skip_bad: leave bad rows out, and note them in errors.jsonl beside the table.
        images: the images that the store was extracted from, which the gallery of a task shows.
        tokenizer: folder or Hub name; None builds a tokenizer of words from the training texts.
        max_text_length: tokens of a text, special ones included; longer texts are cut. None takes what the model holds.
        max_regions: regions of an image; None keeps all.
        allow_other_regions: take weights (`model.from_pretrained`) that were trained on regions of another extractor.
    """

    generated: GeneratedSource | None = None
    scene_task: SceneTaskSource | None = None
    store: str | None = None
    pairs: str | None = None
    eval_pairs: str | None = None
    format: str | None = None
    columns: dict[str, str] | str | None = None
    label_names: list[str] | str | None = None
    image_id_stem: bool = False
    image_id_format: str | None = None
    annotations: str | None = None
    eval_annotations: str | None = None
    instances: str | None = None
    split: str | None = None
    eval_split: str | None = None
    rationales: bool = False
    allow_pickle: bool = False
    encoding: str | None = None
    separator: str | None = None
    skip_bad: bool = False
    images: str | None = None
    tokenizer: str | None = None
    max_text_length: int | None = None
    max_regions: int | None = None
    allow_other_regions: bool = False

    @property
    def corpus(self) -> str | None:
        """Name of the corpus that makes its own features; None where they are a store's."""
        return None if self.generated is None and self.scene_task is None else "scenes of shapes"

    def reading(self, evaluation: bool = False) -> dict[str, Any]:
        """Return format and options that `read_annotations` takes for `pairs`, or for `eval_pairs`."""
        own = {name: getattr(self, f"eval_{name}" if evaluation else name) for name in ("annotations", "split")}
        return {"format": self.format} | reader_options({name: getattr(self, name) for name in READING} | own)


@dataclass
class MaskingSection:
    """How texts, regions and pairs are corrupted; the arguments of `MmptDataCollator`.

    Args:
        probability: share of tokens and of regions that is masked.
        whole_word: mask all tokens of a word together.
        words: what a word is then: "tokenizer", "spaces" (segmented texts) or "jieba" (Chinese).
        overlap_threshold: regions whose IoU with a masked one is above this are masked too; None masks only the drawn.
        classify_all_regions: classes and attributes of all regions are predicted, not of the masked alone (LXMERT).
        shares: relative weight of each corruption under conditional masking; a name that is left out has weight 0.
        hard_negative_rate: share of mismatched pairs that take a hard negative where there is one.
    """

    policy: Literal["conditional", "joint", "one_objective"] = "conditional"
    probability: float = 0.15
    whole_word: bool = False
    words: Literal["tokenizer", "spaces", "jieba"] = "tokenizer"
    overlap_threshold: float | None = None
    classify_all_regions: bool = False
    shares: dict[str, float] = field(default_factory=lambda: dict.fromkeys(MASKING_SHARES, 1.0))
    hard_negative_rate: float = 0.0
    seed: int = 0
