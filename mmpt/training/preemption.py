"""Preemption: a run that SIGTERM or Ctrl-C stops saves a checkpoint first, and exits with a code that says so."""

import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import distributed
from transformers import TrainerCallback

logger = logging.getLogger(__name__)

EXIT_STOPPED = 75
"""What the process exits with (EX_TEMPFAIL of sysexits.h: not done, try again)."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals(TrainerCallback):
    """Catch SIGTERM and SIGINT; while a Trainer trains, save a checkpoint after the step and stop training.

    Use as a context manager around a run, and as a callback of its Trainer. Outside training there is nothing to save:
    SIGTERM then exits at once, and so does a second Ctrl-C at any time. All processes of a run stop after the same
    step, whichever of them the signal reaches: their flags travel beside the next step, so that none waits for it.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._asked = False
        self._training = False
        self._earlier: dict[int, Any] = {}
        self._pid = os.getpid()
        self._group: Any = None
        self._sent: tuple[Any, torch.Tensor] | None = None

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._earlier = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if distributed.is_available() and distributed.is_initialized() and args.world_size > 1:
            self._group = distributed.new_group(backend="gloo")
        self._training = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        asked = self._asked
        if self._group is not None:
            sent, self._sent = self._sent, self._send()
            asked = sent is not None and _arrived(sent)
        if asked and not (control.should_evaluate and args.save_strategy == "best"):  # which then decides alone
            self._stop(control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.stopped and not float(state.epoch).is_integer():  # what is due at the end of an epoch is not due yet
            control.should_log = control.should_evaluate = control.should_save = False
        elif self.stopped:
            control.should_save = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self._training or args.save_strategy == "best":
            return
        if self._asked if self._group is None else _arrived(self._send()):
            self._stop(control)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._training = False
        if self._sent is not None:
            _arrived(self._sent)
            self._sent = None

    def _stop(self, control: Any) -> None:
        self.stopped = True
        control.should_save = True
        control.should_training_stop = True

    def _send(self) -> tuple[Any, torch.Tensor]:
        flag = torch.tensor([int(self._asked)])
        return distributed.all_reduce(flag, op=distributed.ReduceOp.MAX, group=self._group, async_op=True), flag

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a worker of the loader, forked with this handler: its parent decides
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if number == signal.SIGINT and (self._asked or not self._training):
            raise KeyboardInterrupt
        if not self._training:
            logger.warning("stopped by SIGTERM outside training, where there is no step to save")
            raise SystemExit(EXIT_STOPPED)
        self._asked = True
        again = "; press Ctrl-C again to stop at once" if number == signal.SIGINT else ""
        logger.warning("got %s: a checkpoint is saved after this step%s", signal.Signals(number).name, again)


class _SparedWorker:
    """A worker's first function: it ends by SIGTERM of its parent alone, and then calls the function that was there.

    A scheduler sends SIGTERM to the whole process group, and the step that is under way needs the workers. PyTorch's
    own handler, which this one replaces, ends them whoever sent it.
    """

    def __init__(self, init: Callable[[int], Any] | None) -> None:
        self.init = init

    def __call__(self, worker: int) -> None:
        if hasattr(signal, "sigwaitinfo"):  # neither macOS nor Windows has it
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            threading.Thread(target=_end_with_parent, daemon=True).start()
        if self.init is not None:
            self.init(worker)


def spare_workers(loader: Any) -> None:
    """Let the workers of a DataLoader outlive a SIGTERM that their process handles; accelerate's wrappers included."""
    inner = getattr(loader, "base_dataloader", loader)
    if not isinstance(inner.worker_init_fn, _SparedWorker):
        inner.worker_init_fn = _SparedWorker(inner.worker_init_fn)


def _end_with_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def _arrived(sent: tuple[Any, torch.Tensor]) -> bool:
    work, flag = sent
    work.wait()
    return bool(flag.item())
