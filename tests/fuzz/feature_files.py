"""Feature files of every format, written as the predecessors' scripts write them: csv, base64, numpy, lmdb, h5py."""

import base64
import csv
import io
import json
import pickle
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import lmdb
import msgpack
import msgpack_numpy
import numpy as np

from mmpt.processing.regions import Regions

LXMERT = (
    *("img_id", "img_h", "img_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf"),
    *("num_boxes", "boxes", "features"),
)
VOLTA = (*LXMERT, "cls_prob", "attrs", "classes")
BOTTOM_UP = ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features")
CLASSES = 5  # background at 0
MAP_SIZE = 2**20 * 64

Image = dict[str, Any]


def make_images(count: int, seed: int = 0, dim: int = 8, ids: Sequence[str] | None = None) -> list[Image]:
    """Images with one to four regions, every field of which is random."""
    rng = np.random.default_rng(seed)
    images = []
    for row in range(count):
        n, width, height = int(rng.integers(1, 5)), int(rng.integers(100, 640)), int(rng.integers(100, 640))
        shares = np.sort(rng.random((n, 2, 2)), axis=1).reshape(n, 4)
        probs = rng.dirichlet(np.ones(CLASSES), n).astype(np.float32)
        images.append(
            dict(
                id=ids[row] if ids else f"COCO_val2014_{row:012d}",
                w=width,
                h=height,
                n=n,
                features=rng.gamma(1.0, 1.0, (n, dim)).astype(np.float32),
                boxes=(shares * [width, height, width, height]).astype(np.float32),
                probs=probs,
                labels=probs[:, 1:].argmax(1),
                scores=probs[:, 1:].max(1),
                attrs=rng.integers(0, 400, n),
                attr_scores=rng.random(n, dtype=np.float32),
            )
        )
    return images


def encode(array: Any) -> str:
    return base64.b64encode(np.ascontiguousarray(array)).decode()


def lxmert_row(image: Image) -> dict[str, Any]:
    return {
        "img_id": image["id"],
        "img_h": image["h"],
        "img_w": image["w"],
        "objects_id": encode(image["labels"]),
        "objects_conf": encode(image["scores"]),
        "attrs_id": encode(image["attrs"]),
        "attrs_conf": encode(image["attr_scores"]),
        "num_boxes": image["n"],
        "boxes": encode(image["boxes"]),
        "features": encode(image["features"]),
        "cls_prob": encode(image["probs"]),
        "attrs": encode(np.zeros((image["n"], 4), np.float32)),
        "classes": encode(image["probs"]),
    }


def write_tsv(path: Path, images: list[Image], columns: Sequence[str]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t", extrasaction="ignore")
        for image in images:
            row = lxmert_row(image)
            writer.writerow(row | {"image_id": row["img_id"], "image_w": row["img_w"], "image_h": row["img_h"]})
    return path


def uniter_arrays(image: Image) -> dict[str, Any]:
    boxes = (image["boxes"] / [image["w"], image["h"], image["w"], image["h"]]).astype(np.float32)
    sizes = boxes[:, 2:] - boxes[:, :2]
    arrays = dict(
        features=image["features"],
        norm_bb=np.concatenate([boxes, sizes], 1),
        conf=image["scores"],
        soft_labels=image["probs"],
    )
    return {name: array.astype(np.float16) for name, array in arrays.items()}


def npz_bytes(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def uniter_value(image: Image, compressed: bool) -> bytes:
    """UNITER's writer: with numpy of its time, `allow_pickle=True` became an array without an axis."""
    arrays = uniter_arrays(image)
    if compressed:
        return npz_bytes(**arrays, **{"allow_pickle ": np.array(True)})
    return msgpack.packb(arrays, default=msgpack_numpy.encode, use_bin_type=True)


def write_lmdb(path: Path, entries: dict[bytes, bytes], subdir: bool = True) -> Path:
    with lmdb.open(str(path), map_size=MAP_SIZE, subdir=subdir) as env, env.begin(write=True) as transaction:
        for key, value in entries.items():
            transaction.put(key, value)
    (path / "lock.mdb" if subdir else path.with_name(path.name + "-lock")).unlink()
    return path


def write_uniter(path: Path, images: list[Image], compressed: bool = True) -> Path:
    entries = {f"{image['id']}.npz".encode(): uniter_value(image, compressed) for image in images}
    return write_lmdb(path, {**entries, b"__keys__": json.dumps([key.decode() for key in entries]).encode()})


def vilbert_item(image: Image) -> dict[str, Any]:
    """One image as ViLBERT's script writes it."""
    return {
        "image_id": image["id"],
        "image_h": image["h"],
        "image_w": image["w"],
        "num_boxes": image["n"],
        "boxes": image["boxes"],
        "features": image["features"],
    }


def pickled_entries(images: list[Image], item: Callable[[Image], dict[str, Any]], **options: Any) -> dict[bytes, bytes]:
    entries = {image["id"].encode(): pickle.dumps(item(image), **options) for image in images}
    return {**entries, b"keys": pickle.dumps(list(entries))}


def write_vilbert(path: Path, images: list[Image]) -> Path:
    return write_lmdb(path, pickled_entries(images, vilbert_item))


def write_h5(path: Path, images: list[Image]) -> Path:
    with h5py.File(path, "w") as file:
        for image in images:
            group = file.create_group(image["id"])
            group["features"] = image["features"]
            group["obj_id"] = image["labels"]
            group["obj_conf"] = image["scores"]
            group["attr_id"] = image["attrs"]
            group["attr_conf"] = image["attr_scores"]
            group["boxes"] = image["boxes"]
            group["img_w"] = image["w"]
            group["img_h"] = image["h"]
    return path


def oscar_features(image: Image) -> Any:
    """The rows of 2054 numbers; the features of `make_images(dim=2048)`."""
    boxes = image["boxes"] / np.asarray([image["w"], image["h"], image["w"], image["h"]], np.float32)
    return np.concatenate([image["features"], boxes, boxes[:, 2:] - boxes[:, :2]], 1).astype(np.float32)


def write_oscar(path: Path, images: list[Image], dtype: str = "f4", as_json: bool = False) -> Path:
    with path.open("w") as file:
        for image in images:
            text = encode(oscar_features(image).astype(dtype))
            item = json.dumps({"num_boxes": image["n"], "features": text})
            file.write(f"{image['id']}\t{item}\n" if as_json else f"{image['id']}\t{image['n']}\t{text}\n")
    return path


def write_predictions(path: Path, images: list[Image], names: Sequence[str]) -> Path:
    with path.open("w") as file:
        for image in images:
            objects = [
                {"class": names[label], "rect": box.tolist(), "conf": float(score)}
                for label, box, score in zip(image["labels"], image["boxes"], image["scores"], strict=True)
            ]
            item = {"image_h": image["h"], "image_w": image["w"], "objects": objects}
            file.write(f"{image['id']}\t{json.dumps(item)}\n")
    return path


def write_npz_folder(path: Path, images: list[Image], uniter: bool = True, transposed: bool = False) -> Path:
    path.mkdir()
    for image in images:
        features = image["features"].T if transposed else image["features"]
        openvqa = dict(
            x=features,
            bbox=image["boxes"],
            num_bbox=image["n"],
            image_h=image["h"],
            image_w=image["w"],
            info=np.array({"objects": 1}, dtype=object),
        )
        (path / f"{image['id']}.npz").write_bytes(npz_bytes(**(uniter_arrays(image) if uniter else openvqa)))
    return path


def write_npy_folder(path: Path, images: list[Image], pickled: bool = False) -> Path:
    path.mkdir()
    for image in images:
        item = {
            "bbox": image["boxes"],
            "num_boxes": image["n"],
            "objects": image["labels"],
            "image_height": image["h"],
            "image_width": image["w"],
            "cls_prob": image["probs"],
            "image_id": image["id"],
            "features": image["features"],
        }
        np.save(path / f"{image['id']}.npy", np.array(item) if pickled else image["features"])
    return path


def expected_regions(image: Image, file_format: str) -> Regions:
    """What a reader must give for an image, worked out here a second time."""
    scale = np.asarray([image["w"], image["h"], image["w"], image["h"]], np.float32)
    facts: dict[str, Any] = dict(features=image["features"], boxes=image["boxes"] / scale, image_id=image["id"])
    sized = dict(width=image["w"], height=image["h"])
    detected = dict(
        labels=image["labels"],
        scores=image["scores"],
        attribute_labels=image["attrs"],
        attribute_scores=image["attr_scores"],
    )
    if file_format in ("lxmert_tsv", "volta_h5"):
        facts |= sized | detected
    elif file_format == "volta_tsv":
        facts |= sized | detected | dict(class_probs=image["probs"], labels=image["labels"] + 1)
    elif file_format in ("bottom_up_tsv", "pickled_lmdb", "openvqa", "webdataset"):
        facts |= sized
    elif file_format == "vinvl_predictions":
        facts |= sized | dict(scores=image["scores"])
    elif file_format == "meshed_memory_h5":
        facts |= sized | dict(class_probs=image["probs"])
    elif file_format == "visdial_h5":
        facts |= sized | dict(labels=image["labels"], scores=image["scores"])
    elif file_format in ("uniter_lmdb", "npz_folder"):
        arrays = uniter_arrays(image)
        boxes = arrays["norm_bb"][:, :4].astype(np.float32)
        facts |= dict(
            features=arrays["features"], boxes=boxes, scores=arrays["conf"], class_probs=arrays["soft_labels"]
        )
    elif file_format == "npy_folder":
        facts["boxes"] = np.tile(np.float32([0, 0, 1, 1]), (image["n"], 1))
    elif file_format in ("pickled_npy_folder", "mmf_folder"):
        facts |= sized | dict(class_probs=image["probs"])
    return Regions(**facts)


def write_mmf_folder(path: Path, images: list[Image]) -> Path:
    path.mkdir()
    for image in images:
        info = {
            "bbox": image["boxes"],
            "num_boxes": image["n"],
            "objects": image["labels"],
            "cls_prob": image["probs"],
            "image_width": image["w"],
            "image_height": image["h"],
            "features": None,
        }
        np.save(path / f"{image['id']}.npy", image["features"])
        np.save(path / f"{image['id']}_info.npy", np.array(info))
    return path


def write_vinvl(path: Path, images: list[Image], names: Sequence[str] = ("person",) * 10) -> Path:
    """predictions.tsv of scene_graph_benchmark with TEST.OUTPUT_FEATURE: each object has its own feature."""
    with path.open("w") as file:
        for image in images:
            objects = [
                {"rect": box.tolist(), "class": names[label], "conf": float(score), "feature": encode(feature)}
                for label, box, score, feature in zip(
                    image["labels"], image["boxes"], image["scores"], image["features"], strict=True
                )
            ]
            item = {"image_h": image["h"], "image_w": image["w"], "objects": objects}
            file.write(f"{image['id']}\t{json.dumps(item)}\n")
    return path


def write_bottom_up_h5(path: Path, images: list[Image], fixed: bool = True) -> Path:
    """tools/detection_features_converter.py of bottom-up-attention-vqa: one row an image, or `pos_boxes`."""
    most = max(image["n"] for image in images)
    scales = [np.asarray([image["w"], image["h"]] * 2, np.float32) for image in images]
    shares = [image["boxes"] / scale for image, scale in zip(images, scales, strict=True)]
    spatial = [np.concatenate([box, box[:, 2:] - box[:, :2]], 1) for box in shares]
    tables = {
        "image_features": [image["features"] for image in images],
        "image_bb": [image["boxes"] for image in images],
        "spatial_features": spatial,
    }
    with h5py.File(path, "w") as file:
        for name, arrays in tables.items():
            if fixed:
                file[name] = np.stack([np.pad(array, ((0, most - len(array)), (0, 0))) for array in arrays])
            else:
                file[name] = np.concatenate(arrays)
        if not fixed:
            ends = np.cumsum([image["n"] for image in images])
            file["pos_boxes"] = np.stack([np.concatenate([[0], ends[:-1]]), ends], 1)
    index = {image["id"]: row for row, image in enumerate(images)}
    path.with_name(f"{path.stem}_imgid2idx.pkl").write_bytes(pickle.dumps(index, protocol=0))
    return path


def write_meshed_memory_h5(path: Path, images: list[Image], sized: bool = True) -> Path:
    """coco_detections.hdf5 of meshed-memory; forks write `<id>_size` too."""
    with h5py.File(path, "w") as file:
        for image in images:
            file[f"{image['id']}_features"] = image["features"]
            file[f"{image['id']}_boxes"] = image["boxes"]
            file[f"{image['id']}_cls_prob"] = image["probs"]
            if sized:
                file[f"{image['id']}_size"] = np.asarray([image["h"], image["w"]])
    return path


def write_visdial_h5(path: Path, images: list[Image], sized: bool = True) -> Path:
    """data/extract_features_detectron.py of VisDial's starter code, classes and scores as floats; zeros fill it up."""
    most = max(image["n"] for image in images) + 1

    def table(name: str) -> Any:
        arrays = [np.asarray(image[name], np.float32) for image in images]
        return np.stack([np.pad(a, ((0, most - len(a)),) + ((0, 0),) * (a.ndim - 1)) for a in arrays])

    with h5py.File(path, "w") as file:
        file["image_ids"] = [image["id"] for image in images]
        for name, field in {"features": "features", "boxes": "boxes", "classes": "labels", "scores": "scores"}.items():
            file[name] = table(field)
        if sized:
            file["image_w"], file["image_h"] = [image["w"] for image in images], [image["h"] for image in images]
        file.attrs["split"] = "val"
    return path


def tar_bytes(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def npy_bytes(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def shard_files(image: Image) -> dict[str, bytes]:
    """The members of one image: features and boxes as arrays, the size in JSON, and the picture that is passed over."""
    size = json.dumps({"width": image["w"], "height": image["h"], "caption": "a dog"}).encode()
    return {
        f"{image['id']}.features.npy": npy_bytes(image["features"]),
        f"{image['id']}.boxes.npy": npy_bytes(image["boxes"]),
        f"{image['id']}.json": size,
        f"{image['id']}.jpg": b"no picture",
    }


def write_shard(path: Path, images: list[Image]) -> Path:
    path.write_bytes(tar_bytes({name: data for image in images for name, data in shard_files(image).items()}))
    return path


WRITERS: dict[str, tuple[str, Callable[[Path, list[Image]], Path]]] = {
    "bottom_up_tsv": ("resnet.tsv", lambda path, images: write_tsv(path, images, BOTTOM_UP)),
    "lxmert_tsv": ("val.tsv", lambda path, images: write_tsv(path, images, LXMERT)),
    "volta_tsv": ("train.tsv", lambda path, images: write_tsv(path, images, VOLTA)),
    "oscar_tsv": ("features.tsv", write_oscar),
    "vinvl_predictions": ("predictions.tsv", write_vinvl),
    "uniter_lmdb": ("feat_numbb36", write_uniter),
    "pickled_lmdb": ("coco.lmdb", write_vilbert),
    "volta_h5": ("val.h5", write_h5),
    "bottom_up_h5": ("val36.hdf5", write_bottom_up_h5),
    "meshed_memory_h5": ("coco_detections.hdf5", write_meshed_memory_h5),
    "visdial_h5": ("features_faster_rcnn_x101_val.h5", write_visdial_h5),
    "npz_folder": ("npz", write_npz_folder),
    "npy_folder": ("npy", write_npy_folder),
    "pickled_npy_folder": ("vilbert", lambda path, images: write_npy_folder(path, images, pickled=True)),
    "mmf_folder": ("mmf", write_mmf_folder),
    "webdataset": ("shard-000000.tar", write_shard),
}
"""Format -> (file name, writer)."""


OPENING: dict[str, dict[str, Any]] = {"npy_folder": {"boxes": "whole_image"}}
"""Format -> what open_features must be told to read it."""


def write_features(folder: Path, file_format: str, images: list[Image]) -> Path:
    """Write a file of the format into a folder and return its path."""
    name, write = WRITERS[file_format]
    return write(folder / name, images)
