"""Run transformers' own shared test mixins against classes that live outside transformers.

`load()` makes the `tests/*.py` of transformers' source archive importable as the package `hf_peer_tests`. The archive
leaves out a few helper modules which those files import; small stand-ins take their place. Nothing of transformers is
kept in this folder.
"""

import importlib
import sys
import types
import unittest
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformers.models.auto import modeling_auto

from tests.transformers_suite.fetch import shared_tests

PACKAGE = "hf_peer_tests"
NOT_FETCHED = "transformers' shared tests are not here; run `python tests/transformers_suite/fetch.py` first"

# Values that differ from every default of PreTrainedConfig's common arguments.
COMMON_CONFIG_KWARGS = {
    "return_dict": False,
    "output_hidden_states": True,
    "output_attentions": False,
    "dtype": "float16",
    "chunk_size_feed_forward": 4,
    "is_encoder_decoder": True,
    "architectures": ["SomeModel"],
    "id2label": {0: "no"},
    "label2id": {"no": 0},
    "problem_type": "regression",
}

_MODULES = {
    "modeling": "test_modeling_common",
    "processing": "test_processing_common",
    "config": "test_configuration_common",
    "training": "test_training_mixin",
}


def load() -> types.SimpleNamespace:
    """Return the modules with the mixins: modeling, processing, config, training.

    Raises:
        RuntimeError: if the shared tests were not fetched.
    """
    if PACKAGE not in sys.modules:
        folder = shared_tests()
        if folder is None:
            raise RuntimeError(NOT_FETCHED)
        _module(PACKAGE, __path__=[str(folder)])
        for name in ("exporters", "generation", "utils"):
            _module(f"{PACKAGE}.{name}", __path__=[])
        _module(f"{PACKAGE}.exporters.test_export", ExportTesterMixin=type("ExportTesterMixin", (), {}))
        _module(f"{PACKAGE}.generation.test_utils", GenerationTesterMixin=type("GenerationTesterMixin", (), {}))
        _module(f"{PACKAGE}.utils.test_configuration_utils", config_common_kwargs=COMMON_CONFIG_KWARGS)
        helpers = (
            "run_distributed",
            "_get_distributed_backend",
            "_get_distributed_device_type",
            "_get_rank_device",
            "_set_rank_device",
            "_start_rank_processes",
        )
        _module(f"{PACKAGE}.distributed_testing_utils", **dict.fromkeys(helpers, _not_shipped))
        _module("fetch_hub_objects_for_ci", url_to_local_path=lambda url: url)
    return types.SimpleNamespace(
        **{short: importlib.import_module(f"{PACKAGE}.{module}") for short, module in _MODULES.items()}
    )


def register_names(base: Sequence[str], pretraining: Sequence[str]) -> None:
    """Tell the suite which auto-mapping the classes belong to.

    It decides by class *name* in the mapping tables whether a class is a bare model, which has no loss, or a head.
    """
    for table, names in (
        (modeling_auto.MODEL_MAPPING_NAMES, base),
        (modeling_auto.MODEL_FOR_PRETRAINING_MAPPING_NAMES, pretraining),
    ):
        for name in names:
            table[f"external-{name}"] = name


def model_case(
    name: str,
    model_classes: Sequence[type],
    config_factory: Callable[[], Any],
    inputs_factory: Callable[[Any], dict[str, Any]],
    *,
    labels: Callable[[type, Any], dict[str, Any]],
    tester: Mapping[str, Any],
) -> type[unittest.TestCase]:
    """Build a test case for models.

    Args:
        name: of the case.
        model_classes: the backbone and its heads, all with the same configuration.
        config_factory: returns a tiny configuration.
        inputs_factory: returns the inputs of forward, batch first, text first.
        labels: returns the labels for a class; none for a bare model.
        tester: attributes of the case's model tester, such as the joint `seq_length`.
    """
    suite = load()

    class Tester:
        is_training = True

        def __init__(self) -> None:
            config = config_factory()
            inputs = inputs_factory(config)
            self.batch_size, self.seq_length = next(iter(inputs.values())).shape[:2]
            for name in ("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size"):
                setattr(self, name, getattr(config, name, None))  # a detector has none of them
            self.__dict__.update(tester)

        def get_config(self) -> Any:
            return config_factory()

        def prepare_config_and_inputs_for_common(self) -> tuple[Any, dict[str, Any]]:
            config = config_factory()
            return config, inputs_factory(config)

    class Case(suite.modeling.ModelTesterMixin, unittest.TestCase):
        all_model_classes = tuple(model_classes)

        def setUp(self) -> None:
            self.model_tester = Tester()
            self.config_tester = suite.config.ConfigTester(self, config_class=type(config_factory()))

        def _prepare_for_class(
            self, inputs_dict: dict[str, Any], model_class: type, return_labels: bool = False
        ) -> dict[str, Any]:
            inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
            if return_labels:
                inputs.update(labels(model_class, self.model_tester.get_config()))
            return inputs

        def test_config(self) -> None:
            self.config_tester.run_common_tests()

    Case.__name__ = Case.__qualname__ = name
    return Case


def processor_case(
    name: str,
    processor_class: type,
    components: Mapping[str, Callable[[], Any]],
    *,
    flags: Mapping[str, Any],
) -> type[unittest.TestCase]:
    """Build a test case for a processor.

    Args:
        name: of the case.
        processor_class: the processor.
        components: for each part of the processor, such as "tokenizer", what makes it. Classes of one's own must be
            registered with their Auto class before.
        flags: class attributes of the case.
    """
    body: dict[str, Any] = {"processor_class": processor_class, **flags}
    for attribute, factory in components.items():
        body[f"_setup_{attribute}"] = classmethod(lambda cls, factory=factory: factory())
    return type(name, (load().processing.ProcessorTesterMixin, unittest.TestCase), body)


def _module(name: str, **content: Any) -> None:
    module = types.ModuleType(name)
    module.__dict__.update(content)
    sys.modules[name] = module


def _not_shipped(*_args: Any, **_kwargs: Any) -> None:
    raise unittest.SkipTest("needs a helper that transformers' source archive does not ship")
