"""The values that fields of TrainingArguments may have: one table, checked before a run begins."""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from mmpt.configuration.errors import MmptValueError
from mmpt.configuration.value_bounds import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, Bounds, check_bounds

_BETA = Bounds(0, 1, open_high=True)
_SEED = Bounds(0, 2**32 - 1)  # numpy's

TRAINING_BOUNDS: dict[str, Bounds] = {
    "learning_rate": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
    "adam_beta1": _BETA,
    "adam_beta2": _BETA,
    "adam_epsilon": NOT_NEGATIVE,
    "max_grad_norm": NOT_NEGATIVE,  # 0 is off
    "num_train_epochs": POSITIVE,
    "warmup_steps": NOT_NEGATIVE,
    "per_device_train_batch_size": AT_LEAST_ONE,
    "per_device_eval_batch_size": AT_LEAST_ONE,
    "gradient_accumulation_steps": AT_LEAST_ONE,
    "eval_accumulation_steps": AT_LEAST_ONE,
    "dataloader_num_workers": NOT_NEGATIVE,
    "dataloader_prefetch_factor": AT_LEAST_ONE,
    "logging_steps": POSITIVE,
    "eval_steps": POSITIVE,
    "save_steps": POSITIVE,
    "eval_delay": NOT_NEGATIVE,
    "save_total_limit": AT_LEAST_ONE,
    "seed": _SEED,
    "data_seed": _SEED,
    "neftune_noise_alpha": POSITIVE,
    "label_smoothing_factor": _BETA,
    "torch_empty_cache_steps": AT_LEAST_ONE,
    "ddp_bucket_cap_mb": AT_LEAST_ONE,
    "ddp_timeout": AT_LEAST_ONE,
}
"""The numbers that a field may have. transformers reads several of those below them as "off" or as another setting."""

TRAINING_CHOICES: dict[str, tuple[Any, ...]] = {
    "train_sampling_strategy": ("random", "sequential", "group_by_length", "batch_rebalance"),
    "dataloader_multiprocessing_context": (None, "fork", "spawn", "forkserver"),
    "include_num_input_tokens_seen": (True, False, "no", "all", "non_padding"),
    "torch_compile_mode": (None, "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"),
    "ddp_backend": (None, "nccl", "gloo", "mpi", "ccl", "hccl", "cncl", "mccl", "xccl"),
    "log_level": ("passive", "detail", "debug", "info", "warning", "error", "critical"),
    "log_level_replica": ("passive", "detail", "debug", "info", "warning", "error", "critical"),
}
"""The texts that a field may have, where transformers does not look."""

_WHOLE_FROM_ONE = ("warmup_steps", "logging_steps", "eval_steps", "save_steps")
_CHECKPOINTING_KEYS = {"use_reentrant", "preserve_rng_state", "determinism_check", "debug", "context_fn", "early_stop"}


def check_training_values(values: Mapping[str, Any], where: str = "") -> None:
    """Refuse fields of TrainingArguments that no run can have.

    Args:
        values: by name; a field that is left out keeps its default.
        where: put before a name in the error.

    Raises:
        MmptValueError: naming the field, its value and what is expected.
    """
    check_bounds(values, TRAINING_BOUNDS, where)
    steps = values.get("max_steps")
    if isinstance(steps, int) and steps != -1 and steps < 1:
        raise MmptValueError(f"{where}max_steps is {steps}, expected 1 or more, or -1 for num_train_epochs")
    for name in _WHOLE_FROM_ONE:
        value = values.get(name)
        if isinstance(value, float) and value > 1 and value != int(value):
            raise MmptValueError(f"{where}{name} is {value}, expected a whole number, or a share of the run below 1")
    for name, choices in TRAINING_CHOICES.items():
        value = values.get(name, choices[0])
        if not isinstance(value, Enum) and value not in choices:
            named = ", ".join("null" if choice is None else str(choice) for choice in choices)
            raise MmptValueError(f"{where}{name} is {value!r}, expected one of {named}")
    if values.get("output_dir") == "":
        raise MmptValueError(f"{where}output_dir is empty, expected the folder to write")
    if values.get("dataloader_persistent_workers") and not values.get("dataloader_num_workers"):
        raise MmptValueError(
            f"{where}dataloader_persistent_workers is true without workers; set dataloader_num_workers to 1 or more"
        )
    _check_reports(values.get("report_to"), where)
    _check_options(values, where)


def check_schedule(args: Any) -> None:
    """Make the learning rate's schedule once, for its options are otherwise read when training begins.

    Raises:
        MmptValueError: if the schedule does not take `lr_scheduler_kwargs`, or needs some that are not there.
    """
    from torch import nn, optim
    from transformers import get_scheduler

    optimizer = optim.SGD([nn.Parameter()], lr=0.1)
    options = dict(args.lr_scheduler_kwargs or {})
    try:
        get_scheduler(args.lr_scheduler_type, optimizer, 0, 1_000_000, scheduler_specific_kwargs=options)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise MmptValueError(
            f"lr_scheduler_kwargs is {args.lr_scheduler_kwargs!r}, expected the options of "
            f"{getattr(args.lr_scheduler_type, 'value', args.lr_scheduler_type)!r}: {error}"
        ) from error


def _check_reports(reports: Any, where: str) -> None:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    known = {"all", "none", *INTEGRATION_TO_CALLBACK}
    for report in reports if isinstance(reports, list) else [reports]:
        if isinstance(report, str) and report not in known:
            raise MmptValueError(f"{where}report_to is {report!r}, expected some of {', '.join(sorted(known))}")


def _check_options(values: Mapping[str, Any], where: str) -> None:
    """Check the fields whose value is a list of options."""
    options = values.get("optim_args")
    if isinstance(options, str) and not all("=" in item for item in options.split(",")):
        raise MmptValueError(f"{where}optim_args is {options!r}, expected NAME=VALUE,NAME=VALUE")
    for name in ("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs"):
        given = values.get(name)
        unknown = sorted(map(str, set(given) - _CHECKPOINTING_KEYS)) if isinstance(given, dict) else []
        if unknown:
            raise MmptValueError(
                f"{where}{name} has {unknown[0]!r}, expected some of {', '.join(sorted(_CHECKPOINTING_KEYS))}"
            )
    backend = values.get("torch_compile_backend")
    if backend is not None:
        from accelerate.utils import DynamoBackend

        known = [item.value.lower() for item in DynamoBackend]
        if str(backend).lower() not in known:
            raise MmptValueError(f"{where}torch_compile_backend is {backend!r}, expected one of {', '.join(known)}")
    for name in ("fsdp_config", "deepspeed", "accelerator_config"):
        given = values.get(name)
        if isinstance(given, str) and not given.lstrip().startswith("{") and not Path(given).is_file():
            raise MmptValueError(f"{where}{name} is {given!r}, expected a mapping or the path of a JSON file")
