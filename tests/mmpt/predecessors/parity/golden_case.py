"""A golden case: what a predecessor's original code computed, and what our converted model makes of the same input."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from mmpt.modeling_mmpt.modeling_pretraining import MmptForPreTraining
from mmpt.predecessors.conversion import carry_out, plan_conversion

Tensors = dict[str, Tensor]
LOGITS = {
    "logits.mlm": "mlm_logits",
    "logits.itm": "itm_logits",
    "logits.region": "mrc_logits",
    "logits.obj": "mrc_logits",
    "logits.attr": "mrc_attribute_logits",
    "logits.qa": "qa_logits",
    "pred.feat": "mrfr_prediction",
}
STATES = {
    "text_hidden": "text_last_hidden_state",
    "region_hidden": "region_last_hidden_state",
    "pooled_text": "text_pooler_output",
    "pooled_region": "region_pooler_output",
    "pooled_fused": "pooler_output",
}
NOT_OURS = ("ot_distance", "task.")
"""UNITER's optimal transport, and 12-in-1's fine-tuned heads, which `test_golden_heads.py` compares."""


@dataclass
class GoldenCase:
    folder: Path

    def __post_init__(self) -> None:
        self.about: dict[str, Any] = json.loads((self.folder / "case.json").read_text())
        self.inputs = load_file(self.folder / "inputs.safetensors")
        self.matched_first = self.about["itm_polarity"].startswith("class 0")

    def convert(self, tmp_path: Path, weights: str, attention: str, **overrides: Any) -> MmptForPreTraining:
        config = tmp_path / "their-config.json"
        config.write_text(json.dumps(self.about["config"]))
        plan = plan_conversion(self.folder / weights, config_path=config, **overrides)
        model = carry_out(plan)
        model.set_attn_implementation(attention)
        return model

    def expected(self, file: str = "outputs.safetensors") -> dict[str, Tensors]:
        """Return the given tensors by the run they belong to: prefix -> name -> tensor."""
        runs: dict[str, Tensors] = {}
        for name, tensor in load_file(self.folder / file).items():
            prefix, _, rest = name.partition(".")
            known = prefix in ("mrm", "allregions", "vtype0", "vtype1")
            runs.setdefault(prefix if known else "", {})[rest if known else name] = tensor
        for name in ("loss.mrfr", "loss.mrc", "loss.mrc_kl"):
            if "mrm" in runs:  # they are named without the prefix
                runs["mrm"][name] = runs[""].pop(name)
        return runs

    def batch(self, run: str) -> Tensors:
        given = self.inputs
        text = {name: given[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in given}
        unmasked = run == "" and "mrm" in self.expected()  # UNITER masks regions in a run of their own
        features = given["region_features_raw" if unmasked else "region_features"]
        batch = {
            **text,
            "region_features": features,
            "region_boxes": given["boxes_xyxy"],
            "region_attention_mask": given["region_attention_mask"],
        }
        if run == "allregions":
            batch["region_attention_mask"] = torch.ones_like(given["region_attention_mask"])
        if run == "mrm":
            batch["masked_regions"] = given["region_mask_labels"].bool()
        if "task_ids" in given:
            batch["task_ids"] = given["task_ids"][:, 0]
        return batch

    def computed(self, model: MmptForPreTraining, run: str) -> Tensors:
        """Return what our model gives for a run, by their names; padding is zeroed and classes are in their order."""
        batch = self.batch(run)
        with torch.no_grad():
            states, output = model.backbone(**batch), model(**batch)
        found = {name: getattr(states, ours) for name, ours in STATES.items() if getattr(states, ours) is not None}
        found |= {name: getattr(output, ours) for name, ours in LOGITS.items() if getattr(output, ours) is not None}
        text_mask = batch["attention_mask"][..., None]
        region_mask = batch["region_attention_mask"][..., None]
        for name in list(found):
            tensor = found[name]
            if name in ("text_hidden", "logits.mlm"):
                ahead = tensor.shape[1] - text_mask.shape[1]  # the task token
                found[name] = torch.cat([tensor[:, :ahead], tensor[:, ahead:] * text_mask], dim=1)
            elif tensor.dim() == 3:
                found[name] = tensor * region_mask
        if self.matched_first:
            classes = found["logits.itm"].shape[1]
            found["logits.itm"] = found["logits.itm"][:, [1, 0, *range(2, classes)]]
        return found

    def losses(self, model: MmptForPreTraining, run: str) -> dict[str, float]:
        """Return the losses of a run in the predecessor's normalisation."""
        given, ignored = self.inputs, self.about["mlm_ignore_index"]
        batch, labels, scale = self.batch(run), {}, {}
        count = given["region_attention_mask"].numel()
        options: dict[str, Any] = {}
        if "mlm_labels" in given:
            labels["mlm_labels"] = given["mlm_labels"].masked_fill(given["mlm_labels"] == ignored, -100)
        if "itm_labels" in given:
            itm = given["itm_labels"]
            labels["itm_labels"] = torch.where(itm < 2, 1 - itm, itm) if self.matched_first else itm
        if "qa_labels" in given and "qa" in model.config.objective_weights:
            labels["qa_labels"] = given["qa_labels"].masked_fill(given["qa_labels"] < 0, -100)
        masked = given["region_mask_labels"].bool() if "region_mask_labels" in given else None
        if "soft_labels" in given and masked is not None:
            soft = given["soft_labels"]
            if self.about["global_region"]:
                soft = torch.cat([torch.zeros_like(soft[:, :1]), soft], dim=1)
            labels["mrc_kl_labels"] = torch.where(masked[..., None], soft, -100.0)
            if "mrc" in model.config.objective_weights:
                labels["mrc_labels"] = torch.where(masked, soft[..., 1:].argmax(-1) + 1, -100)
                scale["mrc_kl"] = 1 / soft.shape[-1]
        if "obj_labels" in given and masked is not None:
            everywhere = self.about["peer"] != "e-bug/volta"
            where = torch.ones_like(masked) if everywhere else masked
            labels["mrc_labels"] = given["obj_labels"].masked_fill(~where, -100)
            labels["mrc_attribute_labels"] = given["attr_labels"].masked_fill(~where, -100)
            options = {"region_scores": given["obj_confs"], "region_attribute_scores": given["attr_confs"]}
            if everywhere:
                factor = self.about["config"].get("visual_loss_normalizer", 1 / 0.15)
                scale |= dict.fromkeys(("mrc", "mrc_attribute", "mrfr"), factor)
        if masked is not None and "mrfr" in model.config.objective_weights:
            labels["mrfr_labels"] = torch.where(masked[..., None], given["region_features_raw"], -100.0)
        with torch.no_grad():
            output = model(**batch, **labels, **options)
        found = {name.removesuffix("_labels"): float(output[name.replace("labels", "loss")]) for name in labels}
        if "obj_labels" in given and "mrfr" in found:
            found["mrfr"] *= int(masked.sum()) / count  # theirs is the mean over all regions
        found = {name: value * scale.get(name, 1.0) for name, value in found.items()}
        names = {"mrc": "obj", "mrc_attribute": "attr", "mrfr": "feat"} if "obj_labels" in given else {}
        if self.about["global_region"]:
            names = {"mrc_kl": "region_kl"}
        named = {f"loss.{names.get(name, name)}": value for name, value in found.items()}
        return named | {"loss.total": sum(named.values())}
