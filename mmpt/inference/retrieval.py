"""Retrieval in two stages: an index of embeddings finds candidates, the joint model ranks them."""

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, load_from_disk

from mmpt.configuration.errors import MmptFileExistsError, MmptFileNotFoundError, MmptImportError, MmptValueError
from mmpt.inference.batching import is_many
from mmpt.inference.pipeline import MmptPipeline

INDEX = "embedding"
INDEX_FILE = "index.faiss"
CHUNK = 4096  # items whose regions are in memory at once
SAME_COSINE = 0.99  # of one item's embeddings by one model at two precisions


class RetrievalIndex:
    """An index of images that texts search, or of texts that images search, on FAISS.

    Embeddings of each modality alone (the contrastive head) find candidates in one search of the index; the model then
    sees each query together with its candidates and orders them. So a query costs as many joint passes as it has
    candidates, not as many as there are items.

    Made by `of_images`, `of_texts` and `load`.
    """

    def __init__(self, pipeline: MmptPipeline, table: Dataset) -> None:
        self.pipeline = pipeline
        self.table = table
        self.item = "image_id" if "image_id" in table.column_names else "text"
        table.set_format(columns=[self.item])  # a search need not bring the embeddings

    @classmethod
    def of_images(cls, pipeline: MmptPipeline, string_factory: str | None = None) -> "RetrievalIndex":
        """Index every image of the pipeline's `regions`.

        Args:
            string_factory: FAISS's name of the kind of index; an exact one by default, "HNSW32" for millions.

        Raises:
            ImportError: without FAISS.
            ValueError: if the pipeline has no regions, or its model no contrastive head.
        """
        if not pipeline.regions:
            raise MmptValueError("the pipeline has no regions to index, expected MmptPipeline(..., regions=store)")
        return cls._of(pipeline, "image_id", list(pipeline.regions), string_factory)

    @classmethod
    def of_texts(
        cls, pipeline: MmptPipeline, texts: Sequence[str], string_factory: str | None = None
    ) -> "RetrievalIndex":
        """Index texts, as `of_images` does images."""
        if not len(texts):
            raise MmptValueError("got no texts to index, expected at least one")
        return cls._of(pipeline, "text", list(texts), string_factory)

    def search(self, query: Any, top_k: int = 10, rerank: int = 50) -> Any:
        """Return the `top_k` best items of a query, as `{"score", "similarity", "image_id" or "text"}`, best first.

        Score is the joint model's probability of a match, similarity the cosine of the embeddings. A list of queries
        gives a list.

        Args:
            query: a text, or an image as `MmptPipeline` takes it.
            rerank: how many of the nearest items the joint model sees. 0 ranks by the embeddings alone, and there is no
                score then.

        Raises:
            ValueError: if fewer items would be seen than are wanted.
        """
        if top_k < 1 or 0 < rerank < top_k:
            raise MmptValueError(f"top_k is {top_k} and rerank {rerank}, expected 1 <= top_k <= rerank, or rerank 0")
        queries = list(query) if is_many(query) else [query]
        if not queries:
            return []
        embed = self.pipeline.embed_texts if self.item == "image_id" else self.pipeline.embed_images
        similarities, nearest = self.table.get_nearest_examples_batch(
            INDEX, embed(queries).numpy(), k=min(max(top_k, rerank), len(self.table))
        )
        results = [
            [{"similarity": float(cosine), self.item: name} for cosine, name in zip(row, names[self.item], strict=True)]
            for row, names in zip(similarities, nearest, strict=True)
        ]
        if rerank:
            asked = [one for one, row in zip(queries, results, strict=True) for _ in row]
            items = [each[self.item] for each in chain(*results)]
            texts, images = (asked, items) if self.item == "image_id" else (items, asked)
            odds = self.pipeline.log_odds(texts, images)
            scores = torch.tensor(odds, dtype=torch.float64).sigmoid().tolist()
            rest = iter(zip(odds, scores, strict=True))
            for row in results:
                # By the log-odds, because probabilities near 1 are all the same number.
                scored = [(value, {**each, "score": score}) for each, (value, score) in zip(row, rest, strict=False)]
                row[:] = [each for _, each in sorted(scored, key=lambda pair: -pair[0])]
        results = [row[:top_k] for row in results]
        return results if is_many(query) else results[0]

    def save(self, folder: str | Path) -> None:
        """Write the index and what it is of into a new folder, the index last.

        Raises:
            FileExistsError: if the folder is there and not empty.
        """
        folder = Path(folder)
        if folder.exists() and any(folder.iterdir()):
            raise MmptFileExistsError(f"{folder} is not empty, expected a new folder for the index")
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f"{INDEX_FILE}.partial"
        self.table.save_faiss_index(INDEX, unfinished)
        # A dataset is not saved with an index attached to it.
        self.table.drop_index(INDEX)
        try:
            self.table.save_to_disk(folder)
        finally:
            self.table.load_faiss_index(INDEX, unfinished)
        unfinished.rename(folder / INDEX_FILE)

    @classmethod
    def load(cls, folder: str | Path, pipeline: MmptPipeline) -> "RetrievalIndex":
        """Open an index that was saved, for the model that made it.

        Raises:
            ImportError: without FAISS.
            FileNotFoundError: if there is no index, or its writing was interrupted.
            ValueError: if another model made it, or the pipeline lacks its images.
        """
        _check_faiss()
        file = Path(folder) / INDEX_FILE
        if not file.is_file():
            raise MmptFileNotFoundError(f"{folder} holds no finished index, expected {INDEX_FILE} in it; make it again")
        table = load_from_disk(str(folder))
        assert isinstance(table, Dataset)
        table.set_format()
        first = table[0]
        table.load_faiss_index(INDEX, file)
        index = cls(pipeline, table)
        if index.item == "image_id" and first["image_id"] not in (pipeline.regions or ()):
            raise MmptValueError(
                f"{folder} is an index of images, the first is {first['image_id']!r}, which the pipeline does not "
                "have, expected the regions that were indexed: MmptPipeline(..., regions=store)"
            )
        embed = pipeline.embed_images if index.item == "image_id" else pipeline.embed_texts
        embedding = embed(first[index.item]).numpy()
        if embedding.shape != np.shape(first[INDEX]) or embedding @ first[INDEX] < SAME_COSINE:
            raise MmptValueError(f"{folder} was made by another model, or of other regions; index them again")
        return index

    @classmethod
    def _of(cls, pipeline: MmptPipeline, item: str, items: list[str], string_factory: str | None) -> "RetrievalIndex":
        _check_faiss()
        import faiss

        embed = pipeline.embed_images if item == "image_id" else pipeline.embed_texts
        chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
        embeddings = np.concatenate([embed(chunk).numpy() for chunk in chunks])
        table = Dataset.from_dict({item: items, INDEX: embeddings})
        table.add_faiss_index(
            INDEX, string_factory=string_factory, metric_type=faiss.METRIC_INNER_PRODUCT, train_size=len(table)
        )
        return cls(pipeline, table)


def _check_faiss() -> None:
    if find_spec("faiss") is None:
        raise MmptImportError("an index needs FAISS, which is not installed; pip install 'mmpt[retrieval]'")
