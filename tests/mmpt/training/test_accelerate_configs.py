"""The files that `accelerate launch --config_file` takes: accelerate's own loader accepts them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

from mmpt.modeling_mmpt import layers
from tests.factories.paths import ROOT

FOLDER = ROOT / "recipes/accelerate"
KINDS = {
    "ddp": DistributedType.MULTI_GPU,
    "fsdp2": DistributedType.FSDP,
    "multi_node": DistributedType.MULTI_GPU,
}


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.yaml")))
def test_accelerate_loads_it(name: str) -> None:
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    assert isinstance(config, ClusterConfig)
    assert config.distributed_type == KINDS[name]
    assert config.num_processes == 8 * config.num_machines


def test_fsdp_names_layers_that_exist_and_keys_that_accelerate_knows() -> None:
    given = yaml.safe_load((FOLDER / "fsdp2.yaml").read_text())["fsdp_config"]
    for name in given["fsdp_transformer_layer_cls_to_wrap"].split(","):
        assert issubclass(getattr(layers, name), torch.nn.Module)
    known = set(FullyShardedDataParallelPlugin.__dataclass_fields__)
    renamed = {"transformer_layer_cls_to_wrap": "transformer_cls_names_to_wrap", "offload_params": "cpu_offload"}
    for key in given:
        short = key.removeprefix("fsdp_")
        assert renamed.get(short, short) in known | {"version"}, key


def test_the_file_for_one_machine_starts_processes_on_a_cpu(tmp_path: Path) -> None:
    script = tmp_path / "ranks.py"
    script.write_text("import os\nprint('rank', os.environ['RANK'], 'of', os.environ['WORLD_SIZE'])\n")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(FOLDER / "ddp.yaml")]
    command += ["--num_processes", "2", "--main_process_port", "0", str(script)]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    assert sorted(done.stdout.splitlines()) == ["rank 0 of 2", "rank 1 of 2"]
