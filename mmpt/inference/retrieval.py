"""Two-stage retrieval: an index of embeddings finds candidates, and the joint model reranks them."""

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
CHUNK = 4096  # number of items whose regions are in memory at once
SAME_COSINE = 0.99  # minimum cosine of embeddings of one item by the same model at different precisions


class RetrievalIndex:
    """FAISS index of images for text queries, or of texts for image queries.

    One search of the index finds candidates by unimodal embeddings (of the contrastive head). The joint model then
    scores each query with its candidates and sorts them. The number of joint forward passes per query is thus the
    number of candidates, not the number of items.

    Use `of_images`, `of_texts` or `load` to create an index.
    """

    def __init__(self, pipeline: MmptPipeline, table: Dataset) -> None:
        self.pipeline = pipeline
        self.table = table
        self.item = "image_id" if "image_id" in table.column_names else "text"
        table.set_format(columns=[self.item])  # so that a search does not load the embeddings

    @classmethod
    def of_images(cls, pipeline: MmptPipeline, string_factory: str | None = None) -> "RetrievalIndex":
        """Index every image of the pipeline's `regions`.

        Args:
            string_factory: FAISS name of the type of index, such as "HNSW32" for millions of items; None means exact
                search.

        Raises:
            ImportError: if FAISS is not installed.
            ValueError: if the pipeline has no regions, or its model has no contrastive head.
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

        Score is the matching probability of the joint model, similarity the cosine of the embeddings. A list of
        queries returns a list of results.

        Args:
            query: a text, or an image in a form that `MmptPipeline` accepts.
            top_k: number of items to return.
            rerank: number of nearest items to score with the joint model; 0 ranks by embeddings only, without a score.

        Raises:
            ValueError: if `rerank` is above 0 but smaller than `top_k`.
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
                # Sorted by log-odds, because large log-odds all give the probability 1.
                scored = [(value, {**each, "score": score}) for each, (value, score) in zip(row, rest, strict=False)]
                row[:] = [each for _, each in sorted(scored, key=lambda pair: -pair[0])]
        results = [row[:top_k] for row in results]
        return results if is_many(query) else results[0]

    def save(self, folder: str | Path) -> None:
        """Write the items and the index into a new folder, the index last.

        Raises:
            FileExistsError: if the folder exists and is not empty.
        """
        folder = Path(folder)
        if folder.exists() and any(folder.iterdir()):
            raise MmptFileExistsError(f"{folder} is not empty, expected a new folder for the index")
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f"{INDEX_FILE}.partial"
        self.table.save_faiss_index(INDEX, unfinished)
        # `save_to_disk` does not accept a dataset with an attached index.
        self.table.drop_index(INDEX)
        try:
            self.table.save_to_disk(folder)
        finally:
            self.table.load_faiss_index(INDEX, unfinished)
        unfinished.rename(folder / INDEX_FILE)

    @classmethod
    def load(cls, folder: str | Path, pipeline: MmptPipeline) -> "RetrievalIndex":
        """Open a saved index with the model that made it.

        Raises:
            ImportError: if FAISS is not installed.
            FileNotFoundError: if there is no index, or writing was interrupted.
            ValueError: if another model made it, or the pipeline lacks its images.
        """
        _check_faiss()
        file = Path(folder) / INDEX_FILE
        if not file.is_file():
            raise MmptFileNotFoundError(f"{folder} has no complete index, expected {INDEX_FILE} in it; make it again")
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
            raise MmptValueError(f"{folder} was made by another model, or from other regions; index them again")
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
