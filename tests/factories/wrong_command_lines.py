"""A catalogue of wrong command lines over all commands, and the files that they name.

A case is (words, what the error must name). Words in braces are files of `make_files`.
"""

from pathlib import Path
from typing import Any

import numpy as np

from mmpt.processing.regions import Regions
from mmpt.processing.store.writer import RegionStoreWriter

Case = tuple[list[str], str]

PRETRAIN = """
model:
  hidden_size: 16
  num_hidden_layers: 1
  num_attention_heads: 2
  intermediate_size: 16
  max_position_embeddings: 80
data: {generated: {train_scenes: 8, eval_scenes: 4}}
training: {output_dir: RUN, max_steps: 1, use_cpu: true, report_to: none}
"""
FINETUNE = PRETRAIN.replace(
    "generated: {train_scenes: 8, eval_scenes: 4}", "scene_task: {train_rows: 8, evaluation_rows: 4}"
)
FINETUNE += "task: {name: entailment}\n"

NEGATIVE, NAN, INFINITE = "-1", ".nan", ".inf"

# key -> values that no run can have
TRAINING: dict[str, list[str]] = {
    "learning_rate": ["-1", ".nan", ".inf", "fast", "1e400", "[1]", "null"],
    "weight_decay": ["-0.1", ".nan"],
    "adam_beta1": ["-0.1", "1", "1.5"],
    "adam_beta2": ["-0.1", "1", "2"],
    "adam_epsilon": ["-1e-8", ".nan"],
    "max_grad_norm": ["-1"],
    "num_train_epochs": ["-1", "0", ".inf"],
    "max_steps": ["0", "-5", "1.5", "many"],
    "warmup_steps": ["-1", "1.5"],
    "per_device_train_batch_size": ["0", "-4", "2.5", "true", "big"],
    "per_device_eval_batch_size": ["0", "-1"],
    "gradient_accumulation_steps": ["0", "-2"],
    "eval_accumulation_steps": ["0", "-1"],
    "dataloader_num_workers": ["-1", "0.5"],
    "dataloader_prefetch_factor": ["-1", "2"],
    "dataloader_multiprocessing_context": ["threads"],
    "logging_steps": ["0", "-1", "2.5", ".nan"],
    "save_steps": ["0", "-1", "2.5"],
    "save_total_limit": ["0", "-1"],
    "seed": ["-1", "99999999999", "1.5", "x"],
    "data_seed": ["-1"],
    "neftune_noise_alpha": ["-1"],
    "label_smoothing_factor": ["-0.1", "1.5"],
    "torch_empty_cache_steps": ["0"],
    "eval_delay": ["-1"],
    "lr_scheduler_type": ["wavy"],
    "lr_scheduler_kwargs": ["{num_steps: 3}", "[1]"],
    "optim": ["sgdd"],
    "optim_args": ["nonsense"],
    "eval_strategy": ["sometimes"],
    "save_strategy": ["sometimes"],
    "logging_strategy": ["sometimes"],
    "hub_strategy": ["sometimes"],
    "train_sampling_strategy": ["sorted"],
    "log_level": ["loud"],
    "report_to": ["nowhere"],
    "ddp_backend": ["carrier_pigeon"],
    "ddp_timeout": ["0", "-1"],
    "ddp_bucket_cap_mb": ["-1"],
    "fsdp": ["half"],
    "fsdp_config": ["{missing}"],
    "deepspeed": ["{missing}"],
    "accelerator_config": ["{missing}"],
    "gradient_checkpointing_kwargs": ["[1]", "{reentrant: true}"],
    "torch_compile_backend": ["gcc"],
    "torch_compile_mode": ["fastest"],
    "output_dir": ["{empty}", "{empty}/run", ""],
    "tf32": ["true"],
    "include_num_input_tokens_seen": ["perhaps"],
}
MODEL: dict[str, list[str]] = {
    "hidden_dropout_prob": ["2", "-0.1", "1.5", ".nan", "much"],
    "attention_probs_dropout_prob": ["2", "-0.1"],
    "pooled_dropout_prob": ["2", "-0.1"],
    "hidden_size": ["0", "-16", "15", "16.5"],
    "num_attention_heads": ["0", "-2", "3"],
    "num_hidden_layers": ["-1"],
    "intermediate_size": ["0", "-1"],
    "vocab_size": ["0", "-1", "3"],
    "max_position_embeddings": ["0", "-1", "2"],
    "type_vocab_size": ["0", "-1"],
    "initializer_range": ["-0.1", ".nan"],
    "layer_norm_eps": ["-1", "0"],
    "pad_token_id": ["-1", "100000"],
    "hidden_act": ["gelou", "''"],
    "region_feature_dim": ["0", "-1", "7"],
    "region_box_dim": ["3", "-1"],
    "region_box_octaves": ["-1"],
    "region_type_embedding": ["mine"],
    "region_type_vocab_size": ["-1"],
    "region_token_type_id": ["-1"],
    "pooler_size": ["0", "-1"],
    "pooler_act": ["sigmoid"],
    "num_region_classes": ["-1"],
    "region_background_class": ["-1"],
    "num_region_attributes": ["-1"],
    "num_matching_classes": ["0", "1", "-1"],
    "num_qa_labels": ["-1"],
    "num_task_tokens": ["-1"],
    "objective_weights": ["{mlm: -1}", "{mlm: .nan}", "{mlm: .inf}", "{lmm: 1}", "{qa: 1}", "{mlm: 0}", "[mlm]"],
    "stream": ["triple"],
    "preset": ["bert", "vilbert"],
    "from_pretrained": ["{missing}", "{folder}", "{empty}"],
    "schema_version": ["2"],
    "contrastive_size": ["-1"],
    "retrieval_negatives": ["0"],
    "retrieval_margin": ["-0.5"],
    "alignment_size": ["0"],
    "hidden_sise": ["16"],
}
DATA: dict[str, list[str]] = {
    "train_scenes": ["0", "-1", "1.5"],
    "eval_scenes": ["0", "-1"],
    "generated.seed": ["-1"],
    "statements": ["-0.1", "1.1", ".nan"],
    "partial_captions": ["-0.1", "2"],
    "tokenizer": ["{missing}", "{folder}"],
    "max_text_length": ["0", "2", "-1", "1000"],
    "max_regions": ["0", "-1"],
    "generated": ["null", "7"],
    "store": ["{store}"],
    "pairs": ["{pairs}"],
}
MASKING: dict[str, list[str]] = {
    "policy": ["random"],
    "probability": ["-0.1", "1.1", ".nan"],
    "overlap_threshold": ["-0.1", "2"],
    "hard_negative_rate": ["-0.1", "1.1"],
    "shares": ["{text: 0}", "{text: -1}", "{words: 1}", "{}"],
    "masking.seed": ["-1"],
    "whole_word": ["maybe"],
}
TASK: dict[str, list[str]] = {
    "task.name": ["nothing"],
    "blank": ["sound"],
    "layer_lr_decay": ["-0.1", "1.1", ".nan"],
    "head_lr_factor": ["-1"],
    "freeze": ["-1", "99", "everything", "3.5"],
    "task.label_smoothing": ["-0.1", "1"],
    "class_weights": ["[1]", "[-1, 1, 1]", "[.nan, 1, 1]", "[0, 0, 0]", "even"],
    "min_answer_count": ["0"],
    "early_stopping_patience": ["0", "-1"],
    "gallery": ["-1"],
    "train_rows": ["0", "-1"],
    "evaluation_rows": ["0"],
    "scene_task.seed": ["-1"],
    "train_sampling_strategy": ["group_by_length"],
    "learning_rate": ["-1"],
    "hidden_dropout_prob": ["2"],
    "per_device_eval_batch_size": ["0"],
    "from_pretrained": ["{missing}", "{folder}"],
}

# Several words that do not go together, or are no words of a recipe.
TOGETHER: list[Case] = [
    (["--objective_weights", "{}"], "objectives"),
    (["--accelerator_config", "{splits: true}"], "splits"),
    (["--hidden_size", "1000000000"], "out of memory"),
    *((["--resume_from_checkpoint", name], name.strip("{}")) for name in ("{missing}", "{empty}", "{folder}")),
    *((["--region_store", name], name.strip("{}")) for name in ("{missing}", "{empty}", "{folder}")),
    (["--eval_strategy", "steps", "--eval_steps", "0"], "eval_steps"),
    (["--eval_strategy", "steps", "--eval_steps", "-1"], "eval_steps"),
    (["--eval_strategy", "steps", "--eval_steps", "2.5"], "eval_steps"),
    (["--fp16", "true", "--bf16", "true"], "fp16"),
    (["--load_best_model_at_end", "true", "--eval_strategy", "no"], "load_best_model_at_end"),
    (["--lr_scheduler_type", "reduce_lr_on_plateau"], "eval"),
    (["--dataloader_persistent_workers", "true"], "dataloader_persistent_workers"),
    (["--hidden_size", "16", "--num_attention_heads", "5"], "num_attention_heads"),
    (["--preset", "uniter", "--from_pretrained", "{folder}"], "preset"),
    (["--generated", "null", "--store", "{missing}", "--pairs", "{pairs}"], "missing"),
    (["--generated", "null", "--store", "{folder}", "--pairs", "{pairs}"], "folder"),
    (["--generated", "null", "--store", "{binary}", "--pairs", "{pairs}"], "binary"),
    (["--generated", "null", "--store", "{store}", "--pairs", "{missing}"], "missing"),
    (["--generated", "null", "--store", "{store}", "--pairs", "{folder}"], "folder"),
    (["--generated", "null", "--store", "{store}", "--pairs", "{empty}"], "empty"),
    (["--generated", "null", "--store", "{store}", "--pairs", "{binary}"], "binary"),
    (["--generated", "null", "--store", "{store}", "--pairs", "{no_rows}"], "no_rows"),
    (["--generated", "null", "--store", "{store}", "--pairs", "{other_images}"], "image"),
    (["--generated", "null", "--store", "{store}", "--pairs", "{no_text}", "--objective_weights", "{mlm: 1}"], "text"),
    (["--generated", "null", "--store", "{store}", "--pairs", "{pairs}", "--eval_pairs", "{missing}"], "missing"),
    (["--generated", "null", "--store", "{store}", "--pairs", "{pairs}", "--eval_pairs", "{no_rows}"], "no_rows"),
    (
        [
            "--generated",
            "null",
            "--store",
            "{store}",
            "--pairs",
            "{pairs}",
            "--objective_weights",
            "{mlm: 1}",
            "--eval_strategy",
            "epoch",
        ],
        "eval",
    ),
    (
        [
            "--generated",
            "null",
            "--store",
            "{store}",
            "--pairs",
            "{pairs}",
            "--objective_weights",
            "{mlm: 1}",
            "--eval_on_start",
            "true",
        ],
        "eval",
    ),
    (["--generated", "null", "--store", "{store}", "--pairs", "{pairs}", "--objective_weights", "{mrc: 1}"], "labels"),
    (["--generated", "null"], "data"),
    (["--store", "{store}", "--pairs", "{pairs}"], "generated"),
    (["--eval_pairs", "{pairs}"], "data.store"),
    (["--dual", "1"], "dual"),
    (["--stream", "dual"], "co_attention"),
    (["--hub_token", "secret"], "hub_token"),
    (["--max_step", "3"], "max_steps"),
    (["--seed"], "seed"),
    (["three"], "three"),
    (["--region_store", "{store}", "--region_feature_dim", "5"], "have no regions"),
    (["--whole_word", "[true"], "whole_word"),
    (["--max_steps", "1\n2"], "max_steps"),
    (["--learning_rate="], "learning_rate"),
    (["--model.=3"], "model."),
    (["--.=3"], "."),
    (["--model", "3"], "model"),
    (["--training", "{}"], "training"),
]

# Text of a recipe, and what the error names.
RECIPES: dict[str, tuple[str, str]] = {
    "empty": ("", "data"),
    "list": ("- model\n- data\n", "sections"),
    "scalar": ("7\n", "sections"),
    "tabs": ("model:\n\thidden_size: 16\n", "not valid YAML"),
    "twice": (PRETRAIN + "model: {}\n", "twice"),
    "twice_merged": ("a: &a {seed: 1}\n" + PRETRAIN, "'a'"),
    "merge_key": ("training: {<<: {seed: -1}, max_steps: 1}\ndata: {generated: {}}\n", "seed"),
    "bomb": (
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{n}: &{n} [{', '.join(['*' + p] * 9)}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True)),
        "anchors",
    ),
    "bomb_inside": (
        "training:\n  debug: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"  {n}: &{n} [{', '.join(['*' + p] * 9)}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True)),
        "anchors",
    ),
    "itself": ("training: &a {debug: *a}\n", "contains itself"),
    "itself_list": ("training: {report_to: &a [*a]}\n", "contains itself"),
    "lr_kwargs_itself": (
        PRETRAIN.replace("max_steps", "lr_scheduler_kwargs: &a {x: *a}, max_steps"),
        "contains itself",
    ),
    "two_documents": ("model: {}\n---\ndata: {}\n", "not valid YAML"),
    "python": ("model: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
    "list_key": ("[1, 2]: 3\n", "key"),
    "mapping_key": ("{a: 1}: 3\n", "not valid YAML"),
    "null_key": ("null: 3\n", "None"),
    "int_key": ("7: 3\n", "7"),
    "section_list": ("model: [1]\n", "model"),
    "section_text": ("training: fast\n", "training"),
    "unknown_section": ("modle: {}\n", "modle"),
    "unknown_anchor": ("model: *nothing\n", "not valid YAML"),
    "deep": ("model: " + "[" * 3000 + "]" * 3000 + "\n", "nested"),
    "control": ('model: {stream: "\x07"}\n', "not valid YAML"),
    "nan": ("training: {learning_rate: .nan}\n", "learning_rate"),
    "date": (PRETRAIN.replace("max_steps: 1", "max_steps: 2024-01-01"), "max_steps"),
    "set": ("model: !!set {stream}\n", "model"),
    "binary_tag": ("model: {preset: !!binary aGVsbG8=}\n", "preset"),
    "no_source": ("data: {}\n", "data"),
    "null_section": ("data: null\n", "data"),
    "both_streams": ("model: {single: {hidden_size: 16}, hidden_size: 16}\ndata: {generated: {}}\n", "hidden_size"),
    "wrong_stream_key": ("model: {dual: {hidden_sise: 16}}\ndata: {generated: {}}\n", "hidden_sise"),
    "wrong_stream_value": (
        "model: {dual: {region_hidden_size: -1}}\ndata: {generated: {train_scenes: 8}}\n",
        "region_hidden_size",
    ),
    "list_of_layers": (
        "model: {stream: dual, text_co_attention_layers: [9], region_co_attention_layers: [0], num_hidden_layers: 2}\n"
        "data: {generated: {train_scenes: 8}}\n",
        "text_co_attention_layers",
    ),
    "huge_int": ("training: {max_steps: " + "9" * 5000 + "}\n", "digits"),
    "masking_null_share": ("masking: {shares: {text: null}}\ndata: {generated: {}}\n", "shares.text"),
}

TABLES = ["--pairs", "{pairs}", "--store", "{store}"]
COMMANDS: list[Case] = [
    (["pretrain"], "RECIPE"),
    (["pretrain", "{missing}"], "missing"),
    (["pretrain", "{folder}"], "folder"),
    (["pretrain", "{binary}"], "binary"),
    (["pretrain", "{store}"], "store"),
    (["pretrain", ""], "recipe"),
    (["pretrain", "{finetune}"], "finetune"),
    (["finetune", "{pretrain}"], "task"),
    (["finetune", "{missing}"], "missing"),
    (["finetune", "{folder}"], "folder"),
    (["finetune", "{binary}"], "binary"),
    (["finetune", "{empty}"], "task"),
    (["evaluate", "{missing}"], "missing"),
    (["evaluate", "{folder}"], "folder"),
    (["evaluate", "{empty}"], "empty"),
    (["evaluate", "{binary}", *TABLES], "binary"),
    (["evaluate", "{folder}", "--task", "nothing"], "nothing"),
    (["evaluate", "{folder}", "--gallery", "3"], "gallery"),
    (["evaluate", "{folder}", "--out", "{run}", "--gallery", "-3"], "gallery"),
    (["evaluate", "{folder}", "--batch-size", "0"], "batch-size"),
    (["evaluate", "{folder}", "--batch-size", "x"], "batch-size"),
    (["evaluate", "{folder}", "--device", "tpu9"], "tpu9"),
    (["evaluate", "{folder}", "--dtype", "float7"], "float7"),
    (["evaluate", "{folder}", "--blank", "sound"], "sound"),
    (["evaluate", "{folder}", "--out", "{empty}"], "empty"),
    (["evaluate"], "MODEL"),
    (["predict", "{missing}"], "missing"),
    (["predict", "{folder}", *TABLES], "folder"),
    (["predict", "{folder}", "--batch-size", "-1"], "batch-size"),
    (["predict", "{folder}", "--device", "gpu"], "gpu"),
    (["predict", "{folder}", "--dtype", "int8"], "int8"),
    (["convert", "{missing}", "{run}"], "missing"),
    (["convert", "{folder}", "{run}"], "folder"),
    (["convert", "{empty}", "{run}"], "empty"),
    (["convert", "{binary}", "{run}"], "binary"),
    (["convert", "{binary}"], "OUT"),
    (["convert", "{folder}", "{run}", "--from", "clip"], "folder"),
    (["convert", "{folder}", "{run}", "--to", "clip"], "clip"),
    (["convert", "{folder}", "{run}", "--to", "lxmert"], "folder"),
    (["convert", "{folder}", "{run}", "--to", "lxmert", "--dry-run"], "--to"),
    (["convert", "{folder}", "{run}", "--set", "hidden_size"], "hidden_size"),
    (["convert", "{folder}", "{run}", "--task", "nothing"], "folder"),
    (["convert", "{folder}", "{run}", "--preset", "nothing"], "folder"),
    (["convert", "{folder}", "{run}", "--labels", "{missing}"], "folder"),
    (["convert", "{folder}", "{run}", "--config", "{missing}"], "missing"),
    (["push", "{missing}", "me/tiny"], "missing"),
    (["push", "{empty}", "me/tiny"], "empty"),
    (["push", "{folder}", "me/tiny"], "folder"),
    (["push", "{store}", "a/b/c"], "a/b/c"),
    (["push", "{store}", ""], "Repo id"),
    (["extract", "--images", "{missing}", "--model", "{folder}", "--out", "{run}"], "missing"),
    (["extract", "--images", "{folder}", "--model", "{missing}", "--out", "{run}"], ""),
    (["extract", "--images", "{image_folder}", "--model", "{missing}", "--out", "{run}"], "missing"),
    (["extract", "--images", "{image_folder}", "--model", "{folder}", "--out", "{run}"], "folder"),
    (["extract", "--images", "{image_folder}", "--model", "{binary}", "--out", "{run}"], "binary"),
    (["extract", "--images", "{binary}", "--model", "{folder}", "--out", "{run}"], "binary"),
    (["extract", "--images", "{empty}", "--model", "{folder}", "--out", "{run}"], "empty"),
    (["extract", "--images", "{image_folder}", "--model", "{folder}", "--out", "{run}", "--shard", "0/4"], "0/4"),
    (["extract", "--images", "{image_folder}", "--model", "{folder}", "--out", "{run}", "--shard", "x"], "x"),
    *(
        (
            ["extract", "--images", "{image_folder}", "--model", "{folder}", "--out", "{run}", f"--{name}", value],
            name.replace("-", "_"),
        )
        for name, value in (
            ("backend", "yolo"),
            ("max-regions", "0"),
            ("max-regions", "-1"),
            ("min-regions", "-1"),
            ("min-regions", "99"),
            ("threshold", "-1"),
            ("threshold", "1.5"),
            ("threshold", "nan"),
            ("batch-size", "0"),
            ("batch-size", "-1"),
            ("dtype", "float7"),
            ("device", "tpu9"),
        )
    ),
    (["extract", "--images", "{image_folder}", "--model", "x", "--out", "x", "--box-format", "inches"], "box-format"),
    (["extract", "--images", "{image_folder}", "--model", "x", "--out", "x", "--shard-bytes", "-1"], "shard-bytes"),
    (["import", "{missing}", "--out", "{run}"], "missing"),
    (["import", "{folder}", "--out", "{run}"], "folder"),
    (["import", "{empty}", "--out", "{run}"], "empty"),
    (["import", "{binary}", "--out", "{run}"], "binary"),
    (["import", "{binary}", "--out", "{run}", "--format", "nothing"], "nothing"),
    (["import", "{tsv}", "--out", "{run}", "--shard-bytes", "0"], "shard-bytes"),
    (["import", "{tsv}", "--out", "{empty}"], "a.tsv"),
    (["show", "{missing}", "a"], "missing"),
    (["show", "{folder}", "a"], "folder"),
    (["show", "{store}", "nothing"], "nothing"),
    (["show", "{store}", "image-0", "--image", "{missing}"], "missing"),
    (["show", "{store}", "image-0", "--image", "{binary}"], "image"),
    (["show", "{store}", "image-0", "--out", "{missing}/a.png"], "missing"),
    (["show", "{store}", "image-0", "--out", "{folder}"], "folder"),
    (["info", "{missing}"], "missing"),
    (["info", "{folder}"], "folder"),
    (["info", "{empty}"], "empty"),
    (["info", "{binary}"], "binary"),
    (["info", "{broken_store}"], "broken_store"),
    (["validate", "{missing}"], "missing"),
    (["validate", "{empty}"], "empty"),
    (["validate", "{store}", "--source", "{missing}"], "source"),
    (["validate", "{store}", "--eval-pairs", "{pairs}"], "eval-pairs"),
    (["validate", "{store}", "--pairs", "{missing}"], "missing"),
    (["validate", "{store}", "--pairs", "{binary}"], "binary"),
    (["validate", "{store}", "--pairs", "{pairs}", "--format", "nothing"], "nothing"),
    (["validate", "{store}", "--repair", "--source", "{missing}"], "missing"),
    (["merge", "{missing}", "--out", "{run}"], "missing"),
    (["merge", "{store}", "{folder}", "--out", "{run}"], "folder"),
    (["merge", "{store}", "{store}", "--out", "{run}"], "store"),
    (["merge", "{store}", "--out", "{store}"], "store"),
    (["merge", "--out", "{run}"], "STORE"),
    (["pairs", "{missing}", "--out", "{run}.csv"], "missing"),
    (["pairs", "{folder}", "--out", "{run}.csv"], "folder"),
    (["pairs", "{binary}", "--out", "{run}.csv"], "binary"),
    (["pairs", "{empty}", "--out", "{run}.csv"], "empty"),
    (["pairs", "{pairs}", "--out", "{run}.xlsx"], "xlsx"),
    (["pairs", "{pairs}", "--out", "{folder}"], "folder"),
    (["pairs", "{pairs}", "--out", "{run}.csv", "--format", "nothing"], "nothing"),
    (["pairs", "{pairs}", "--out", "{run}.csv", "--image-id-format", "{{nothing}}"], "image_id_format"),
    (["pairs", "{coco}", "--out", "{run}.csv", "--image-id-format", "{{nothing}}"], "nothing"),
    (["pairs", "{coco}", "--out", "{run}.csv", "--image-id-format", "same"], "same"),
    (["env", "all"], "all"),
    (["train"], "train"),
    (["--nothing"], "--nothing"),
]


def cases() -> list[Case]:
    """Return every case, the command first."""
    found: list[Case] = []
    for table, command in (
        (TRAINING, "pretrain"),
        (MODEL, "pretrain"),
        (DATA, "pretrain"),
        (MASKING, "pretrain"),
        (TASK, "finetune"),
    ):
        for key, values in table.items():
            found += [([command, f"{{{command}}}", f"--{key}", value], key.rpartition(".")[2]) for value in values]
    found += [(["pretrain", "{pretrain}", *words], named) for words, named in TOGETHER]
    found += [(["pretrain", f"{{recipe_{name}}}"], named) for name, (_, named) in RECIPES.items()]
    return found + COMMANDS


def make_files(folder: Path) -> dict[str, str]:
    """Write what the cases name, and return its paths by name."""
    rng = np.random.default_rng(0)
    files: dict[str, Any] = {"run": folder / "run", "missing": folder / "missing"}
    for name, text in (("pretrain", PRETRAIN), ("finetune", FINETUNE)):
        files[name] = folder / f"{name}.yaml"
        files[name].write_text(text.replace("RUN", str(folder / "run")))
    for name, (text, _) in RECIPES.items():
        files[f"recipe_{name}"] = folder / f"recipe_{name}.yaml"
        files[f"recipe_{name}"].write_text(text.replace("RUN", str(folder / "run")))
    for name in ("folder", "image_folder", "broken_store"):
        files[name] = folder / name
        files[name].mkdir()
    from PIL import Image

    Image.new("RGB", (8, 8)).save(folder / "image_folder" / "a.png")
    files["empty"] = folder / "empty"
    files["empty"].write_text("")
    files["binary"] = folder / "binary"
    files["binary"].write_bytes(rng.bytes(500))
    files["tsv"] = folder / "a.tsv"
    files["tsv"].write_text("a\tb\n")
    files["store"] = folder / "store"
    with RegionStoreWriter(files["store"], extractor={"name": "random"}) as writer:
        for number in range(4):
            boxes = np.array([[0, 0, 0.5, 0.5], [0.2, 0.2, 1, 1]], dtype=np.float32)
            writer.add(Regions(rng.normal(size=(2, 6)).astype(np.float32), boxes, image_id=f"image-{number}"))
    manifest = next(path for path in files["store"].iterdir() if path.suffix == ".json")
    (folder / "broken_store" / manifest.name).write_text("{")
    for name, text in (
        ("pairs", "text,image_id\n" + "".join(f"a red star,image-{n}\n" for n in range(4))),
        ("no_rows", "text,image_id\n"),
        ("other_images", "text,image_id\na red star,image-9\n"),
        ("no_text", "words,image_id\na red star,image-1\n"),
    ):
        files[name] = folder / f"{name}.csv"
        files[name].write_text(text)
    files["coco"] = folder / "coco.json"
    files["coco"].write_text(
        '{"images": [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "2.jpg"}], '
        '"annotations": [{"id": 1, "image_id": 1, "caption": "a"}, {"id": 2, "image_id": 2, "caption": "b"}]}'
    )
    return {name: str(path) for name, path in files.items()}


def fill_in(words: list[str], files: dict[str, str]) -> list[str]:
    """Return the words with the files' paths."""
    filled = []
    for word in words:
        for name, path in files.items():
            word = word.replace(f"{{{name}}}", path)
        filled.append(word.replace("{{nothing}}", "{nothing}"))
    return filled
