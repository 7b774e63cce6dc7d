"""Models loaded with 8-bit and 4-bit weights, where bitsandbytes is installed: it runs on a CPU too."""

from pathlib import Path

import pytest
import torch
from transformers import BitsAndBytesConfig

from tests.factories.presets import mechanism_cases

bitsandbytes = pytest.importorskip("bitsandbytes")

CASES = {case.name: case for case in list(mechanism_cases())[:4:3]}
SETTINGS = {"8 bits": {"load_in_8bit": True}, "4 bits": {"load_in_4bit": True}}


@pytest.mark.parametrize("bits", SETTINGS)
@pytest.mark.parametrize("name", CASES)
def test_quantized_weights_give_nearly_the_same_outputs(name: str, bits: str, tmp_path: Path):
    case = CASES[name]
    model = case.build()
    model.save_pretrained(tmp_path)
    loaded = case.model_class.from_pretrained(
        tmp_path, quantization_config=BitsAndBytesConfig(**SETTINGS[bits]), device_map="cpu"
    ).eval()
    kinds = (bitsandbytes.nn.Linear8bitLt, bitsandbytes.nn.Linear4bit)
    assert any(isinstance(module, kinds) for module in loaded.modules())
    with torch.no_grad():
        expected, found = model(**case.batch, **case.labels), loaded(**case.batch, **case.labels)
    assert found.loss.isfinite()
    assert abs(found.loss - expected.loss) < 0.1 * expected.loss
    assert not torch.equal(found.loss, expected.loss)
