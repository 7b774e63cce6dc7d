"""The data of a task from each of its sources: generated scenes, a store with tables, and NLVR."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as PilImage

from mmpt.processing.generated_scenes.box_features import box_features
from mmpt.processing.pairs.dataset import MissingRegionsError
from mmpt.processing.store.record import record_of
from mmpt.recipe.recipe import load_recipe
from mmpt.training.finetuning import finetune
from mmpt.training.task_sources import evaluation_table, nlvr_table, open_task_corpus, store_table, texts_of
from tests.examples.test_nlvr import CLASSES
from tests.factories.tasks import table, write_data

TRAINING = """
model: {hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16}
training: {max_steps: 2, per_device_train_batch_size: 4, logging_steps: 1, use_cpu: true, disable_tqdm: true}
"""


def recipe(folder: Path, data: str, name: str = "nlvr"):
    path = folder / "a.yaml"
    path.write_text(f"{TRAINING}\ndata: {data}\ntask: {{name: {name}}}\n")
    return load_recipe(path, ["--output_dir", str(folder / "run")], command="finetune")


@pytest.fixture
def nlvr(tmp_path: Path) -> Path:
    """A folder of NLVR with every colour, shape and size: nine objects an image, images differ in the size."""
    features = Features(
        {
            "identifier": Value("string"),
            "group": Value("int32"),
            "permutation": Value("int8"),
            "image": Image(),
            "sentence": Value("string"),
            "label": ClassLabel(names=["false", "true"]),
            "objects": {
                "bbox": List(List(Value("float32"), length=4)),
                "category": List(ClassLabel(names=CLASSES)),
                "panel": List(Value("int8")),
            },
        }
    )
    for split, groups in (("train", 3), ("dev", 2)):
        rows = []
        for group, place, permutation in product(range(groups), range(4), (0, 1)):
            size = (10, 20, 30)[(group + place) % 3]
            corners = [(150 * (kind // 3) + 33 * (kind % 3), 60) for kind in range(9)]
            rows.append(
                {
                    "identifier": f"{split}-{group}-{place}",
                    "group": group,
                    "permutation": permutation,
                    "image": PilImage.new("RGB", (400, 100), (211, 40 * place, 0)),
                    "sentence": f"There is a box number {group}",
                    "label": int(place < 2),
                    "objects": {
                        "bbox": [[x, y, x + size, y + size] for x, y in corners],
                        "category": list(range(9)),
                        "panel": [kind // 3 for kind in range(9)],
                    },
                }
            )
        Dataset.from_list(rows, features=features).to_parquet(tmp_path / f"{split}-00000-of-00001.parquet")
    return tmp_path


def test_nlvr_has_true_and_false_rows_of_the_first_permutation(nlvr: Path) -> None:
    rows = nlvr_table(str(nlvr), "dev", "nlvr").dataset
    assert rows.column("label") == [1, 1, 0, 0] * 2
    assert rows.column("label_name")[:4] == ["true", "true", "false", "false"]
    assert rows.ids() == [f"dev-{group}-{place}" for group in range(2) for place in range(4)]
    groups = rows.column("group")
    assert len(set(groups[:4])) == 1
    assert groups[0] != groups[4]
    assert sorted(set(rows[0]["regions"].type_ids.tolist())) == [0, 1, 2]


def test_any_split_of_the_folder_can_be_measured(nlvr: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no test-"):
        nlvr_table(str(nlvr), "test", "nlvr")
    (nlvr / "dev-00000-of-00001.parquet").rename(nlvr / "test-00000-of-00001.parquet")
    rows = nlvr_table(str(nlvr), "test", "nlvr").dataset
    assert rows.ids() == [f"dev-{group}-{place}" for group in range(2) for place in range(4)]


def test_features_of_objects_are_looked_up_or_taken_from_the_pixels_of_their_image(nlvr: Path) -> None:
    looked_up, own = (nlvr_table(str(nlvr), "dev", "nlvr", pixels=pixels).dataset for pixels in (False, True))
    shown = [PilImage.new("RGB", (400, 100), (211, 40 * place, 0)) for place in range(2)]
    for row, image in enumerate(shown):  # rows of one kind of scene, drawn in other colours
        regions = own[row]["regions"]
        boxes = regions.boxes[:9] * 100 + np.array([150, 0, 150, 0]) * regions.type_ids[:9, None]
        np.testing.assert_allclose(regions.features[:9], box_features(image, boxes), atol=1e-5)
    alike = looked_up[0]["regions"].features, looked_up[3]["regions"].features
    np.testing.assert_array_equal(*alike)
    assert not np.allclose(own[0]["regions"].features, own[3]["regions"].features)


def test_nlvr_is_trained_on_and_scored_by_group(nlvr: Path) -> None:
    metrics = finetune(recipe(nlvr, f"{{nlvr: {{folder: {nlvr}}}}}"))
    assert metrics["evaluation"]["accuracy_total"] == 8
    assert metrics["evaluation"]["consistency_total"] == 2


def test_nlvr_is_augmented_and_a_part_of_its_groups_held_out(nlvr: Path) -> None:
    path = nlvr / "train-00000-of-00001.parquet"
    rows = Dataset.from_parquet(str(path))
    groups = [{0: 0, 1: 1, 2: 7}[group] for group in rows["group"]]  # type: ignore[call-overload,index]
    rows.remove_columns("group").add_column("group", groups).to_parquet(path)  # type: ignore[union-attr,call-arg]
    data = recipe(nlvr, f"{{nlvr: {{folder: {nlvr}, augmentations: 2, evaluate_on: held_out}}}}").data
    corpus = open_task_corpus(data, "nlvr")
    assert len(corpus.train) == 2 * 8  # two groups of four, twice
    assert corpus.train.column("label") == [1, 1, 0, 0] * 4
    assert corpus.evaluation is not None
    assert set(corpus.evaluation.dataset.column("group")) == {7}
    assert evaluation_table(data, "nlvr").dataset.column("text") == corpus.evaluation.dataset.column("text")


def test_statements_stand_beside_the_sentences_of_nlvr(nlvr: Path) -> None:
    corpus = open_task_corpus(recipe(nlvr, f"{{nlvr: {{folder: {nlvr}, statements: 5}}}}").data, "nlvr")
    assert corpus.train.column("label") == [1, 1, 0, 0] * 3 + [1, 0] * 5
    texts, groups = corpus.train.column("text")[12:], corpus.train.column("group")[12:]
    assert texts[::2] == texts[1::2]
    assert groups == [group for group in range(3, 8) for _ in range(2)]
    assert corpus.train[12]["regions"].image_id != corpus.train[13]["regions"].image_id


def test_a_table_and_a_store_are_joined(tmp_path: Path) -> None:
    store, pairs = write_data(tmp_path, "multiple_choice", rows=6)
    data = recipe(tmp_path, f"{{store: {store}, pairs: {pairs}}}", "multiple_choice").data
    corpus = open_task_corpus(data, "multiple_choice")
    assert corpus.evaluation is None
    assert corpus.facts == {"region_feature_dim": 6}
    assert {"a blue star", "red star"} <= set(corpus.texts)
    with pytest.raises(ValueError, match=r"no data\.eval_pairs"):
        evaluation_table(data, "multiple_choice")
    joined = store_table(str(pairs), str(store), None, "multiple_choice")
    assert joined.class_names == [f"thing {i}" for i in range(5)]
    assert joined.picture("image-0") is None


def test_images_without_regions_are_named(tmp_path: Path) -> None:
    store, pairs = write_data(tmp_path, "nlvr", rows=6)
    rows = table("nlvr", 6).to_dict() | {"image_id": ["image-0"] * 5 + ["other"]}  # type: ignore[operator]
    Dataset.from_dict(rows).to_parquet(pairs)
    with pytest.raises(MissingRegionsError, match="'other'"):
        store_table(str(pairs), str(store), None, "nlvr")


def test_generated_scenes_evaluate_on_the_rows_of_their_recipe(tmp_path: Path) -> None:
    data = recipe(tmp_path, "{scene_task: {train_rows: 9, evaluation_rows: 18, seed: 3}}", "entailment").data
    rows = evaluation_table(data, "entailment")
    assert len(rows.dataset) == 18
    picture = rows.picture(rows.dataset.column("image_id")[0])
    assert picture is not None
    assert picture.size == (120, 120)


def test_texts_of_a_table_are_all_its_texts() -> None:
    assert texts_of(table("multiple_choice", 1)) == ["red star", "red", "a blue star", "dog"]


def test_a_record_stands_in_for_the_training_split(nlvr: Path) -> None:
    before = nlvr_table(str(nlvr), "dev", "nlvr").dataset
    record = json.loads(json.dumps(record_of(before.regions, "nlvr")))
    for file in nlvr.glob("train-*.parquet"):
        file.unlink()
    with pytest.raises(FileNotFoundError):
        nlvr_table(str(nlvr), "dev", "nlvr")
    after = nlvr_table(str(nlvr), "dev", "nlvr", trained_on=record).dataset
    assert len(after) == len(before)
    for row in range(len(after)):
        np.testing.assert_array_equal(after[row]["regions"].features, before[row]["regions"].features)
        assert after[row]["label"] == before[row]["label"]
