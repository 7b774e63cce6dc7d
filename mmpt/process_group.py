"""The end of a run of several processes."""

import gc

import torch


def leave_process_group() -> None:
    """Leave the group of processes that torchrun started, if there is one, before the interpreter shuts down.

    A gradient reducer still holds the group after training. Its threads, alive while the interpreter shuts down, can
    abort a process whose work is done ("terminate called without an active exception").
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()  # trainers and their models refer to themselves
        torch.distributed.destroy_process_group()
        gc.collect()
