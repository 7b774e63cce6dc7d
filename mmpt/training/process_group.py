"""The processes of one run: what the first decides for all, and how they part."""

import gc
from collections.abc import Callable
from typing import Any

import torch

from mmpt.configuration.errors import MmptError


def on_first_process(function: Callable[[], Any]) -> Any:
    """Return what a function returns in the first process of a run, in all of them; an error is raised in all."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return function()
    answer: list[Any] = [None, None]
    if torch.distributed.get_rank() == 0:
        try:
            answer = [function(), None]
        except MmptError as error:
            answer = [None, error]
    torch.distributed.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]


def leave_process_group() -> None:
    """Leave the group of processes that torchrun started, if there is one, before the interpreter shuts down.

    A gradient reducer still holds the group after training. Its threads, alive while the interpreter shuts down, can
    abort a process whose work is done ("terminate called without an active exception").
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()  # trainers and their models refer to themselves
        torch.distributed.destroy_process_group()
        gc.collect()
