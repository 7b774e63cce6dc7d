import functools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor
from transformers.models.deformable_detr.image_processing_pil_deformable_detr import DeformableDetrImageProcessorPil

from mmpt.processing.region_extraction.detector_backend import DetectorBackend, rank_queries
from mmpt.processing.region_extraction.region_extractor import RegionExtractor
from mmpt.processing.store.writer import RegionStoreWriter
from tests.factories.detectors import CLASSES, DETECTORS, save_detector

SIZES = ((60, 48), (48, 60), (60, 48))  # width x height


@pytest.fixture(scope="session")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)) for width, height in SIZES]


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Give the folder and the extractor of a type; each is made once."""

    @functools.cache
    def make(name: str, **changes: Any) -> tuple[Path, RegionExtractor]:
        folder = save_detector(name, tmp_path_factory.mktemp("detector"), **changes)
        return folder, RegionExtractor.from_pretrained(folder, device="cpu")

    return make


def transformers_best(folder: Path, name: str, model: Any, image: Image.Image) -> tuple[float, int, np.ndarray]:
    """Return score, label and pixel box of the first detection, as transformers gives them for the image alone."""
    processor: Any = AutoImageProcessor.from_pretrained(folder, backend="pil")
    inputs = processor(images=[image], return_tensors="pt")
    inputs.pop("pixel_mask", None)  # all ones: the image is alone
    with torch.no_grad():
        output = model(**inputs)
    # What RF-DETR's own processor does needs torchvision; its post-processing is Deformable DETR's.
    post = DeformableDetrImageProcessorPil() if name == "rf_detr" else processor
    found = post.post_process_object_detection(output, threshold=0.0, target_sizes=[(image.height, image.width)])[0]
    best = int(found["scores"].argmax())
    return found["scores"][best].item(), found["labels"][best].item(), found["boxes"][best].numpy()


@pytest.mark.parametrize("name", DETECTORS)
def test_best_region_in_a_batch_is_the_first_detection_of_transformers(name, saved, images):
    folder, extractor = saved(name)
    for image, regions in zip(images, extractor(images), strict=True):
        score, label, box = transformers_best(folder, name, extractor._backend.model, image)
        size = np.asarray([image.width, image.height, image.width, image.height])
        assert regions.scores[0] == pytest.approx(score, abs=1e-5)
        assert regions.labels[0] == label
        np.testing.assert_allclose(regions.boxes[0] * size, np.clip(box, 0, size), atol=1e-3)
        assert (regions.width, regions.height) == image.size


@pytest.mark.parametrize("name", DETECTORS)
def test_an_image_has_the_same_regions_alone_and_in_a_batch(name, saved, images):
    _, extractor = saved(name)
    for image, together in zip(images, extractor(images), strict=True):
        alone = extractor([image])[0]
        np.testing.assert_allclose(alone.features, together.features, atol=5e-5)
        np.testing.assert_allclose(alone.boxes, together.boxes, atol=5e-5)
        np.testing.assert_allclose(alone.class_probs, together.class_probs, atol=5e-5)


@pytest.mark.parametrize("name", DETECTORS)
def test_regions_are_fit_for_a_store(name, saved, images, tmp_path):
    _, extractor = saved(name)
    with RegionStoreWriter(tmp_path, extractor=extractor.settings, class_names=extractor.class_names) as writer:
        for regions in extractor(images, image_ids=list("abc")):
            writer.add(regions)
            assert regions.features.dtype == np.float32
            assert regions.feature_dim == extractor.feature_dim == 32
            np.testing.assert_allclose(regions.class_probs.sum(1), 1, atol=5e-5)
            np.testing.assert_array_equal(regions.class_probs.argmax(1), regions.labels)
            assert (np.diff(regions.scores) <= 0).all()
    assert extractor.class_names == list(CLASSES.values())  # "N/A" stays, so that indices stay


@pytest.mark.parametrize("name", DETECTORS)
def test_features_depend_on_the_image(name, saved, images):
    _, extractor = saved(name)
    first, _, last = extractor(images)
    assert np.abs(first.features[0] - last.features[0]).max() > 1e-4


def test_rt_detr_without_focal_loss_takes_its_last_class_for_no_object(saved, images):
    folder, extractor = saved("rt_detr", use_focal_loss=False)
    processor: Any = AutoImageProcessor.from_pretrained(folder, backend="pil")
    with torch.no_grad():
        logits = extractor._backend.model(**processor(images=[images[0]], return_tensors="pt")).logits[0]
    # By hand: transformers' own post-processing takes the softmax over the batch here (5.23).
    score, query = logits.softmax(-1)[:, :-1].max(-1).values.max(0)
    ours = extractor([images[0]])[0]
    assert ours.scores[0] == pytest.approx(score.item(), abs=1e-5)
    assert ours.labels[0] == logits[query, :-1].argmax()
    assert extractor.class_names == list(CLASSES.values())[:-1]
    assert ours.class_probs.shape[1] == 4


def output(logits: list[list[float]], boxes: list[list[float]]) -> SimpleNamespace:
    queries = len(logits)
    return SimpleNamespace(
        logits=torch.tensor([logits]),
        pred_boxes=torch.tensor([boxes]),
        last_hidden_state=torch.arange(queries, dtype=torch.float32)[None, :, None],
    )


def backend(model_type: str = "rt_detr", **limits: Any) -> DetectorBackend:
    config = SimpleNamespace(model_type=model_type, id2label={0: "cat", 2: "dog"}, num_labels=2)
    model = SimpleNamespace(config=config)
    return DetectorBackend(model, **{"max_regions": 36, "min_regions": 1, "threshold": 0.0, **limits})


CENTRE = [0.5, 0.5, 0.2, 0.2]
LOGITS = [[-1.0, 0.0], [2.0, 2.0], [-2.0, -3.0]]  # best scores 0.5, 0.88, 0.12


def test_sigmoid_queries_by_hand():
    found = rank_queries(
        torch.tensor([[[0.0, -1.0], [1.0, 3.0]]]),
        torch.tensor([[CENTRE, [0.1, 0.9, 0.4, 0.4]]]),
        torch.tensor([[[9.0], [1.0], [2.0]]]),  # a patch comes before the two queries
        has_no_object=False,
    )
    torch.testing.assert_close(found["scores"], torch.tensor([[0.952574, 0.5]]))
    assert found["labels"].tolist() == [[1, 0]]
    assert found["features"].tolist() == [[[2.0], [1.0]]]
    torch.testing.assert_close(found["boxes"], torch.tensor([[[0.0, 0.7, 0.3, 1.0], [0.4, 0.4, 0.6, 0.6]]]))
    torch.testing.assert_close(found["class_probs"], torch.tensor([[[0.119203, 0.880797], [0.731059, 0.268941]]]))


def test_softmax_scores_count_no_object_and_class_probs_do_not():
    logits = torch.tensor([0.5, 0.2, 0.3]).log()[None, None]
    found = rank_queries(logits, torch.tensor([[CENTRE]]), torch.zeros(1, 1, 1), has_no_object=True)
    assert found["scores"].item() == pytest.approx(0.5)
    torch.testing.assert_close(found["class_probs"], torch.tensor([[[5 / 7, 2 / 7]]]))
    assert found["scores"].item() / found["class_probs"].max().item() == pytest.approx(0.7)  # there is an object


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ({}, [1, 0, 2]),
        ({"threshold": 0.5}, [1, 0]),
        ({"threshold": 0.6}, [1]),
        ({"threshold": 0.6, "max_regions": None, "min_regions": 2}, [1, 0]),
        ({"threshold": 0.99}, [1]),
        ({"max_regions": 2}, [1, 0]),
    ],
)
def test_threshold_and_limits_choose_the_best(limits, kept):
    found = backend(**limits).regions(output(LOGITS, [CENTRE] * 3), None)[0]
    assert found["features"][:, 0].tolist() == kept
    assert {len(array) for array in found.values()} == {len(kept)}


def test_box_without_area_is_dropped():
    found = backend().regions(output(LOGITS, [CENTRE, [1.5, 0.5, 0.4, 0.4], CENTRE]), None)[0]
    assert found["features"][:, 0].tolist() == [0, 2]


def test_image_without_a_box_gets_one_region_over_all_of_it():
    found = backend().regions(output(LOGITS, [[0.5, 0.5, 0.0, 0.2]] * 3), None)[0]
    assert found["boxes"].tolist() == [[0, 0, 1, 1]]
    assert found["features"].tolist() == [[1.0]]  # the mean of 0, 1 and 2
    assert found["class_probs"].sum() == pytest.approx(1)
    assert found["labels"].shape == found["scores"].shape == (1,)


def test_missing_index_of_a_class_keeps_its_place():
    assert backend().class_names == ["cat", "N/A"]


def test_head_of_an_unknown_size_is_an_error():
    with pytest.raises(ValueError, match=r"gives 3 logits per query, expected 2 \(sigmoid over 2 classes\)"):
        backend().regions(output([[0.0, 0.0, 0.0]], [CENTRE]), None)
