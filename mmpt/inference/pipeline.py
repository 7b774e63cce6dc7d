"""The pipeline: a saved model and its processor as functions of texts and images."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoProcessor

from mmpt import register_auto_classes
from mmpt.configuration.errors import MmptOSError, MmptValueError
from mmpt.configuration.pretrained import load_pretrained
from mmpt.inference.batching import Example, example_rows, is_many, size_of, spans_of
from mmpt.inference.image_inputs import ImageInput, ImageInputs
from mmpt.inference.model_functions import check_function, main_function
from mmpt.modeling_mmpt.modeling_pretraining import MmptForPreTraining
from mmpt.modeling_mmpt.objectives import IGNORED
from mmpt.modeling_mmpt.task_models import MODELS
from mmpt.processing.batch_checks import check_tokenizer
from mmpt.processing.processing_mmpt import MmptProcessor
from mmpt.processing.region_extraction.region_extractor import RegionExtractor
from mmpt.processing.regions import Regions
from mmpt.processing.tasks.collator import NOT_FOR_THE_MODEL
from mmpt.processing.tasks.encoding import TaskBatch, TaskEncoder, Text
from mmpt.processing.tasks.inputs import candidate_inputs, choice_inputs, image_pair_inputs, pair_inputs, phrase_inputs

Many = Sequence[Any]


class MmptPipeline:
    """Apply a model to texts and images, with the same results as calling it by hand.

    A text is a string, or a tuple of two. An image is `Regions`, an image id if the pipeline has `regions`, a PIL image
    or the path of an image file. The `extractor` extracts the regions of images and files; one of given boxes needs a
    tuple of image and boxes. A list of inputs is processed in batches and returns a list in the same order. A single
    text can be combined with a list of images, and a single image with a list of texts.

    Each function needs a model that was trained for it, and otherwise raises an error that names the right models.

    Args:
        model: model of any class of this package; it is set to evaluation mode.
        processor: processor of the training run.
        batch_size: number of examples per forward pass.
        regions: image id -> regions, a `RegionStore` or a dict.
        extractor: extractor for images and files. None loads the extractor recorded in the processor when first needed.
        folder: folder of the model, next to which a recorded extractor is searched.
        allow_other_regions: accept regions and an extractor that differ from those of training.

    Raises:
        ValueError: if the tokenizer does not match the model, or regions or extractor differ from those of training.
            Every function also raises it for an image without regions, regions that do not match the model, and lists
            of different lengths.
    """

    def __init__(
        self,
        model: Any,
        processor: MmptProcessor,
        *,
        batch_size: int = 32,
        regions: Mapping[str, Regions] | None = None,
        extractor: RegionExtractor | None = None,
        folder: str | Path | None = None,
        allow_other_regions: bool = False,
    ) -> None:
        if batch_size < 1:
            raise MmptValueError(f"batch_size is {batch_size}, expected at least 1")
        check_tokenizer(processor.tokenizer, model.config)
        self.model = model.eval()
        self.processor: Any = processor
        self.batch_size = batch_size
        self.regions = regions
        self._max_tokens: int = model.config.max_position_embeddings
        self._encoder = TaskEncoder(processor, model.config, self._max_tokens)
        record = processor.image_processor.extracted_by
        self._images = ImageInputs(regions, extractor, record, folder, allow_other_regions)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "float32",
        batch_size: int = 32,
        regions: Mapping[str, Regions] | None = None,
        extractor: RegionExtractor | None = None,
        revision: str | None = None,
        allow_other_regions: bool = False,
    ) -> "MmptPipeline":
        """Load a model and its processor, from the output folder of a run or from the Hub.

        Args:
            device: device of the model; None uses a GPU if there is one.
            dtype: dtype of the weights; "bfloat16" and "float16" are faster on a GPU.
            revision: commit, branch or tag on the Hub.

        Raises:
            OSError: if there is no model, or no processor next to it.
            ValueError: if the model is not of this package.
        """
        register_auto_classes()
        config = load_pretrained(AutoConfig, name, revision=revision)
        architecture = (config.architectures or ["a model without a class name"])[0]
        if architecture not in MODELS:
            raise MmptValueError(f"{name} contains {architecture}, expected one of {', '.join(MODELS)}")
        try:
            processor = load_pretrained(AutoProcessor, name, revision=revision)
        except (OSError, ValueError) as error:
            raise MmptOSError(
                f"{name} has no loadable processor next to its model; save the one that the model was "
                "trained with there: processor.save_pretrained(folder)"
            ) from error
        model = load_pretrained(MODELS[architecture], name, config=config, dtype=dtype, revision=revision)
        model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        return cls(
            model,
            processor,
            batch_size=batch_size,
            regions=regions,
            extractor=extractor,
            folder=name,
            allow_other_regions=allow_other_regions,
        )

    def __call__(self, image: ImageInput | Many, text: Text | Many | None = None, **options: Any) -> Any:
        """Apply the main function of the model to an image and a text, or return the `Regions` of an image alone.

        The main function is the first one of `FUNCTIONS` that the model has. `Regions` can replace their image in every
        call, so that they are extracted only once.

        Args:
            options: further arguments of the function.

        Raises:
            ValueError: as the function does, and if it needs more than one text and one image.
        """
        if text is None:
            given: Any = image
            found = self._images(given if is_many(image) else [given])
            return found if is_many(image) else found[0]
        name = main_function(self.model)
        if name in ("classify_pair", "choose", "ground_phrases"):
            raise MmptValueError(f"{type(self.model).__name__} needs more than one text and image; call {name}(...)")
        return getattr(self, name)(text, image, **options)

    def fill_mask(self, text: Text | Many, image: ImageInput | Many, top_k: int = 5) -> Any:
        """Return the `top_k` most probable tokens for each mask token, in text order.

        Each is `{"score", "token", "token_str"}`, where score is the probability.

        Raises:
            ValueError: also if the model has no masked language modelling, or a text has no mask token.
        """
        check_function(self.model, "fill_mask")
        tokenizer = self.processor.tokenizer

        def fill(examples: list[Example]) -> list[Any]:
            batch = pair_inputs(self._encoder, examples)
            ids = batch.tensors["input_ids"]
            masked = ids == tokenizer.mask_token_id
            for example, found in zip(examples, masked.any(1).tolist(), strict=True):
                if not found:
                    raise MmptValueError(
                        f"the text {example['text']!r} has no {tokenizer.mask_token} among its first "
                        f"{self._max_tokens} tokens, expected one for each word to predict"
                    )
            # Labels select the positions, so that no other head runs and no other token is predicted.
            logits = self._forward(batch, mlm_labels=torch.where(masked, ids, IGNORED), align_logits=False).mlm_logits
            values, tokens = logits.float().softmax(-1).topk(min(top_k, logits.shape[-1]))
            best = [
                [
                    {"score": score, "token": token, "token_str": tokenizer.decode([token])}
                    for score, token in zip(*pair, strict=True)
                ]
                for pair in zip(values.tolist(), tokens.tolist(), strict=True)
            ]
            rest = iter(best)
            return [[next(rest) for _ in range(count)] for count in masked.sum(1).tolist()]

        return self._map(fill, text=text, image=image)

    def answer(self, question: Text | Many, image: ImageInput | Many, top_k: int = 5) -> Any:
        """Return the `top_k` most probable answers, as `{"score", "answer"}`.

        Score is the sigmoid of the answer's logit, or the softmax over all answers for `answer_loss="kl"`.
        """
        check_function(self.model, "answer")
        names = self.model.config.id2label

        def answer(examples: list[Example]) -> list[Any]:
            logits = self._forward(pair_inputs(self._encoder, examples)).logits.float()
            scores = logits.sigmoid() if self.model.decides_answers else logits.softmax(-1)
            return [[{"score": s, "answer": names[n]} for s, n in _best(row, top_k)] for row in scores]

        return self._map(answer, text=question, image=image)

    def classify(self, text: Text | Many, image: ImageInput | Many) -> Any:
        """Return the classes as `{"score", "label"}`, the most probable first; score is the probability."""
        check_function(self.model, "classify")
        return self._map(self._classify(pair_inputs), text=text, image=image)

    def classify_pair(self, text: Text | Many, first_image: ImageInput | Many, second_image: ImageInput | Many) -> Any:
        """Return the classes of a text about two images, as `classify` does."""
        check_function(self.model, "classify_pair")
        return self._map(self._classify(image_pair_inputs), text=text, image=first_image, second_image=second_image)

    def choose(self, text: str | Many, choices: Many, image: ImageInput | Many) -> Any:
        """Return the choices as `{"score", "choice", "index"}`, the most probable first; score is the probability.

        Args:
            choices: two or more texts, or one such list per example.
        """
        check_function(self.model, "choose")
        flat = all(isinstance(choice, str) for choice in choices)

        def choose(examples: list[Example]) -> list[Any]:
            probabilities = self._forward(choice_inputs(self._encoder, examples)).logits.float().softmax(-1)
            return [
                [{"score": s, "choice": example["choices"][n], "index": n} for s, n in _best(row)]
                for example, row in zip(examples, probabilities, strict=True)
            ]

        return self._map(choose, text=text, choices=tuple(choices) if flat else choices, image=image)

    def log_odds(self, text: Text | Many, image: ImageInput | Many) -> Any:
        """Return the log-odds that text and image match.

        They are the score of a retrieval model, or come from the image-text matching head of a pre-training model.
        """
        check_function(self.model, "log_odds")
        return self._map(self._log_odds, text=text, image=image)

    def match(self, text: Text | Many, image: ImageInput | Many) -> Any:
        """Return the probability that text and image match, the sigmoid of `log_odds`."""
        check_function(self.model, "match")
        return torch.tensor(self._map(self._log_odds, text=text, image=image), dtype=torch.float64).sigmoid().tolist()

    def rank_images(self, text: Text | Many, images: Many, top_k: int | None = None) -> Any:
        """Return the `top_k` (default: all) images that match a text best, as `{"score", "index", "image_id"}`.

        Score is that of `match`, index the position in `images`, and image_id the id or path, None for a PIL image.
        Every text is scored with every image; use `RetrievalIndex` for large numbers of images.
        """
        check_function(self.model, "rank_images")
        images = list(images)
        ranked = self._rank(text, "text", images, "image", top_k)
        for row in ranked if is_many(text) else [ranked]:
            for each in row:
                each["image_id"] = image_id_of(images[each["index"]])
        return ranked

    def rank_texts(self, image: ImageInput | Many, texts: Many, top_k: int | None = None) -> Any:
        """Return the `top_k` texts that match an image best, as `rank_images` does."""
        check_function(self.model, "rank_texts")
        return self._rank(image, "image", texts, "text", top_k)

    def ground(self, text: Text | Many, image: ImageInput | Many, top_k: int | None = None) -> Any:
        """Return the `top_k` (default: all) regions for a referring expression, as `{"score", "box", "region"}`.

        Score is the probability among the regions of the image, box is x1 y1 x2 y2 in pixels, and region is the number
        among the regions that the processor keeps.

        Raises:
            ValueError: also if the regions have no image width and height.
        """
        check_function(self.model, "ground")

        def ground(examples: list[Example]) -> list[Any]:
            batch = candidate_inputs(self._encoder, examples)
            logits = self._forward(batch).logits.cpu()[:, None]
            return [phrases[0] for phrases in _regions(logits, batch, top_k)]

        return self._map(ground, text=text, image=image)

    def ground_phrases(
        self, text: str | Many, phrases: Many, image: ImageInput | Many, top_k: int | None = None
    ) -> Any:
        """Return the `top_k` regions for each phrase of a caption, as `ground` does.

        Args:
            phrases: words of the caption, or (start, end) in characters, end excluded; or one such list per caption.

        Raises:
            ValueError: also if a phrase does not occur exactly once in its caption, or was truncated.
        """
        check_function(self.model, "ground_phrases")
        flat = not phrases or isinstance(phrases[0], str | tuple)

        def ground(examples: list[Example]) -> list[Any]:
            batch = phrase_inputs(
                self._encoder, [{**each, "phrases": spans_of(each["text"], each["phrases"])} for each in examples]
            )
            for example, positions in zip(examples, batch.tensors["phrase_positions"], strict=True):
                for phrase, position in zip(example["phrases"], positions.tolist(), strict=False):
                    if position == IGNORED:
                        raise MmptValueError(
                            f"phrase {phrase!r} has no token among the first {self._max_tokens} of its caption, "
                            "expected a shorter caption, or a phrase of words"
                        )
            ranked = _regions(self._forward(batch).logits.cpu(), batch, top_k)
            return [each[: len(example["phrases"])] for each, example in zip(ranked, examples, strict=True)]

        return self._map(ground, text=text, phrases=tuple(phrases) if flat else phrases, image=image)

    def embed_texts(self, text: Text | Many) -> Tensor:
        """Return text-only embeddings, (texts, contrastive_size) float32 of norm 1.

        For a single text, the shape is (contrastive_size,).

        Raises:
            ValueError: if the model has no contrastive head.
        """
        check_function(self.model, "embed_texts")

        def embed(examples: list[Example]) -> list[Any]:
            texts = [(each["text"], each["text_pair"]) if "text_pair" in each else each["text"] for each in examples]
            batch = self.processor(
                text=texts, padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
            )
            return list(self.model.embed_texts(**batch.to(self.model.device)).cpu())

        return _stacked(self._map(embed, text=text))

    def embed_images(self, image: ImageInput | Many) -> Tensor:
        """Return image-only embeddings, (images, contrastive_size) float32, as `embed_texts` does for texts."""
        check_function(self.model, "embed_images")

        def embed(examples: list[Example]) -> list[Any]:
            batch = self.processor(images=[each["regions"] for each in examples], return_tensors="pt")
            return list(self.model.embed_images(**batch.to(self.model.device)).cpu())

        return _stacked(self._map(embed, image=image))

    def embed_pairs(self, text: Text | Many, image: ImageInput | Many) -> Tensor:
        """Return the pooled vector of the backbone for text and image, (pairs, pooler_size) float32."""
        check_function(self.model, "embed_pairs")
        backbone = getattr(self.model, self.model.base_model_prefix, self.model)

        def embed(examples: list[Example]) -> list[Any]:
            batch = pair_inputs(self._encoder, examples)
            return list(self._forward(batch, model=backbone).pooler_output.float().cpu())

        return _stacked(self._map(embed, text=text, image=image))

    def _map(self, function: Callable[[list[Example]], list[Any]], **columns: Any) -> Any:
        """Run a function on examples in batches; list columns have one value per example.

        Examples of similar size share a batch, to reduce padding.
        """
        examples = example_rows(columns)
        for given, name in (("image", "regions"), ("second_image", "second_regions")):
            if given in columns:
                found = self._images(example.pop(given) for example in examples)
                for example, regions in zip(examples, found, strict=True):
                    example[name] = regions
        order = sorted(range(len(examples)), key=lambda row: size_of(examples[row]))
        results: dict[int, Any] = {}
        for _, alike in groupby(order, key=lambda row: len(examples[row].get("choices", ()))):
            rows = list(alike)
            for start in range(0, len(rows), self.batch_size):
                chosen = rows[start : start + self.batch_size]
                with torch.inference_mode():
                    results |= zip(chosen, function([examples[row] for row in chosen]), strict=True)
        return [results[row] for row in range(len(examples))] if any(map(is_many, columns.values())) else results[0]

    def _forward(self, batch: TaskBatch, model: Any = None, **more: Any) -> Any:
        given: dict[str, Any] = {name: value for name, value in batch.tensors.items() if name not in NOT_FOR_THE_MODEL}
        given |= more
        device = self.model.device
        moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in given.items()}
        return (model or self.model)(**moved)

    def _classify(self, inputs: Callable[..., TaskBatch]) -> Callable[[list[Example]], list[Any]]:
        names = self.model.config.id2label

        def classify(examples: list[Example]) -> list[Any]:
            probabilities = self._forward(inputs(self._encoder, examples)).logits.float().softmax(-1)
            return [[{"score": s, "label": names[n]} for s, n in _best(row)] for row in probabilities]

        return classify

    def _log_odds(self, examples: list[Example]) -> list[float]:
        batch = pair_inputs(self._encoder, examples)
        if not isinstance(self.model, MmptForPreTraining):
            return self._forward(batch).logits.tolist()
        # Dummy labels select the matching head, so that no other head runs.
        labels = torch.zeros(len(examples), dtype=torch.long)
        logits = self._forward(batch, itm_labels=labels).itm_logits.float()
        others = torch.cat([logits[:, :1], logits[:, 2:]], 1)  # all classes but 1, matched
        return (logits[:, 1] - others.logsumexp(1)).tolist()

    def _rank(self, query: Any, query_name: str, items: Many, item_name: str, top_k: int | None) -> Any:
        queries, items = query if is_many(query) else [query], list(items)
        pairs = [(one, item) for one in queries for item in items]
        columns = {query_name: [one for one, _ in pairs], item_name: [item for _, item in pairs]}
        odds = torch.tensor(self._map(self._log_odds, **columns), dtype=torch.float64).view(len(queries), len(items))
        # Sorted by log-odds, because large log-odds all give the probability 1.
        ranked = [[{"score": score, "index": n} for score, n in _best(row.sigmoid(), top_k, order=row)] for row in odds]
        return ranked if is_many(query) else ranked[0]


def image_id_of(image: ImageInput) -> str | None:
    """Return the id of an image's regions, its id in the store or its path; None for a PIL image."""
    first = image[0] if isinstance(image, tuple) else image
    if isinstance(first, Regions):
        return first.image_id
    return str(first) if isinstance(first, str | Path) else None


def _best(scores: Tensor, top_k: int | None = None, order: Tensor | None = None) -> list[tuple[float, int]]:
    """Return (score, index) of the `top_k` entries, sorted by `order` (default: by score), stable for ties.

    scores, order: (entries,).
    """
    numbers = (scores if order is None else order).argsort(descending=True, stable=True)[:top_k]
    return list(zip(scores[numbers].tolist(), numbers.tolist(), strict=True))


def _regions(logits: Tensor, batch: TaskBatch, top_k: int | None) -> list[list[list[Example]]]:
    """Return the best regions of each phrase of each example, without the whole-image region.

    logits: (batch, phrases, regions).
    """
    boxes = batch.tensors["candidate_boxes"]
    results = []
    for row, detected in enumerate(batch.detected):
        probabilities = logits[row][:, detected].float().softmax(-1)  # (phrases, regions)
        own = boxes[row, detected].tolist()
        results.append(
            [[{"score": s, "box": own[n], "region": n} for s, n in _best(each, top_k)] for each in probabilities]
        )
    return results


def _stacked(rows: Any) -> Tensor:
    if isinstance(rows, Tensor):
        return rows
    return torch.stack(rows) if rows else torch.zeros(0)
