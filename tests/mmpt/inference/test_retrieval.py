"""Two-stage retrieval against a search by hand: cosines of all embeddings, then the joint model's probabilities."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmpt import MmptPipeline, RetrievalIndex
from mmpt.modeling_mmpt.task_models import MODELS
from mmpt.processing.image_processing_mmpt import MmptImageProcessor
from mmpt.processing.processing_mmpt import MmptProcessor
from tests.factories.examples import TOKENIZER, random_examples
from tests.factories.models import STREAMS, tiny_config

needs_faiss = pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="FAISS is an extra")

EXAMPLES = random_examples(12)
TEXTS = [example["text"] for example in EXAMPLES]
STORED = {example["image_id"]: example["regions"] for example in EXAMPLES}
PROCESSOR = MmptProcessor(MmptImageProcessor(), TOKENIZER)


def pipeline_of(stream: str = "single", seed: int = 0, **fields: Any) -> MmptPipeline:
    torch.manual_seed(seed)
    sizes = {"vocab_size": len(TOKENIZER), "max_position_embeddings": 16, "contrastive_size": 4}
    model = MODELS[f"Mmpt{stream.capitalize()}StreamForImageAndTextRetrieval"](tiny_config(stream, **sizes | fields))
    return MmptPipeline(model, PROCESSOR, batch_size=5, regions=STORED)


def by_hand(pipeline: MmptPipeline, from_texts: bool, rerank: int) -> list[list[tuple[str, float, float]]]:
    """Return (item, cosine, probability) of the items, best first; queries are texts or images."""
    texts, images = pipeline.embed_texts(TEXTS), pipeline.embed_images(list(STORED))
    cosines = texts @ images.T if from_texts else images @ texts.T
    joint = torch.tensor([pipeline.match([text] * len(STORED), list(STORED)) for text in TEXTS])
    joint = joint if from_texts else joint.T
    items = list(STORED) if from_texts else TEXTS
    ranked = []
    for row in range(len(cosines)):
        nearest = cosines[row].argsort(descending=True).tolist()
        if rerank:
            nearest = sorted(nearest[:rerank], key=lambda column: -joint[row, column].item())
        ranked.append([(items[n], cosines[row, n].item(), joint[row, n].item()) for n in nearest])
    return ranked


@needs_faiss
@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("from_texts", [True, False])
@pytest.mark.parametrize("rerank", [0, 6, 100])
def test_a_search_is_that_by_hand(stream: str, from_texts: bool, rerank: int):
    pipeline = pipeline_of(stream)
    index = RetrievalIndex.of_images(pipeline) if from_texts else RetrievalIndex.of_texts(pipeline, TEXTS)
    queries = TEXTS if from_texts else list(STORED)
    item = "image_id" if from_texts else "text"
    found = index.search(queries, top_k=4, rerank=rerank)
    for row, expected in zip(found, by_hand(pipeline, from_texts, rerank), strict=True):
        assert [each[item] for each in row] == [name for name, *_ in expected[:4]]
        np.testing.assert_allclose([each["similarity"] for each in row], [c for _, c, _ in expected[:4]], atol=1e-5)
        if rerank:
            np.testing.assert_allclose([each["score"] for each in row], [p for *_, p in expected[:4]], atol=1e-5)
        else:
            assert all("score" not in each for each in row)
    alone = index.search(queries[1], top_k=4, rerank=rerank)
    assert [each[item] for each in alone] == [each[item] for each in found[1]]


@needs_faiss
def test_all_candidates_give_the_full_ranking():
    pipeline = pipeline_of()
    found = RetrievalIndex.of_images(pipeline).search(TEXTS[0], top_k=12, rerank=12)
    ranked = pipeline.rank_images(TEXTS[0], list(STORED))
    assert [each["image_id"] for each in found] == [list(STORED)[each["index"]] for each in ranked]


@needs_faiss
def test_an_index_is_saved_and_loaded(tmp_path: Path):
    pipeline = pipeline_of()
    for kind, index, query in (
        ("images", RetrievalIndex.of_images(pipeline), TEXTS[0]),
        ("texts", RetrievalIndex.of_texts(pipeline, TEXTS), "image-0"),
    ):
        before = index.search(query, top_k=3, rerank=6)
        index.save(tmp_path / kind)
        assert index.search(query, top_k=3, rerank=6) == before
        assert RetrievalIndex.load(tmp_path / kind, pipeline).search(query, top_k=3, rerank=6) == before
        with pytest.raises(FileExistsError, match="is not empty"):
            index.save(tmp_path / kind)
        with pytest.raises(ValueError, match="was made by another model"):
            RetrievalIndex.load(tmp_path / kind, pipeline_of(seed=1))
        with pytest.raises(ValueError, match="was made by another model"):
            RetrievalIndex.load(tmp_path / kind, pipeline_of(contrastive_size=5))
    (tmp_path / "images" / "index.faiss").unlink()
    with pytest.raises(FileNotFoundError, match="has no complete index"):
        RetrievalIndex.load(tmp_path / "images", pipeline)


@needs_faiss
def test_an_index_of_images_needs_them(tmp_path: Path):
    pipeline = pipeline_of()
    RetrievalIndex.of_images(pipeline).save(tmp_path / "index")
    bare = MmptPipeline(pipeline.model, PROCESSOR)
    with pytest.raises(ValueError, match="the first is 'image-0', which the pipeline does not have"):
        RetrievalIndex.load(tmp_path / "index", bare)
    with pytest.raises(ValueError, match="has no regions to index"):
        RetrievalIndex.of_images(bare)


@needs_faiss
def test_another_kind_of_index_finds_what_an_exact_one_finds():
    pipeline = pipeline_of()
    exact, graph, cells = (RetrievalIndex.of_images(pipeline, kind) for kind in (None, "HNSW8", "IVF2,Flat"))
    expected = exact.search(TEXTS, top_k=1, rerank=0)
    assert [row[0]["image_id"] for row in graph.search(TEXTS, top_k=1, rerank=0)] == [
        row[0]["image_id"] for row in expected
    ]
    # One of two cells is looked through, so that fewer than twelve are found, and never a place without an item.
    for row in cells.search(TEXTS, top_k=12, rerank=12):
        assert 0 < len(row) < 12
        assert {each["image_id"] for each in row} <= set(STORED)


@needs_faiss
def test_wrong_requests():
    pipeline = pipeline_of()
    index = RetrievalIndex.of_images(pipeline)
    with pytest.raises(ValueError, match="top_k is 10 and rerank 5, expected 1 <= top_k <= rerank, or rerank 0"):
        index.search("a dog", top_k=10, rerank=5)
    with pytest.raises(ValueError, match="got no texts to index"):
        RetrievalIndex.of_texts(pipeline, [])
    with pytest.raises(ValueError, match="has no contrastive head"):
        RetrievalIndex.of_images(pipeline_of(contrastive_size=0))
    assert index.search([]) == []


def test_without_faiss_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("mmpt.inference.retrieval.find_spec", lambda name: None)
    for make in (
        lambda: RetrievalIndex.of_images(pipeline_of()),
        lambda: RetrievalIndex.of_texts(pipeline_of(), TEXTS),
        lambda: RetrievalIndex.load(tmp_path, pipeline_of()),
    ):
        with pytest.raises(ImportError, match=r"pip install 'mmpt\[retrieval\]'"):
            make()
