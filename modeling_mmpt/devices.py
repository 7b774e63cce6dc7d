"""The device that a name means."""

import torch

from mmpt.configuration.errors import MmptValueError


def device_of(name: str | torch.device | None) -> torch.device:
    """Return the device of a name; None is a GPU if there is one.

    Raises:
        MmptValueError: if there is no such device on this machine.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MmptValueError(
            f"device is {str(name)!r}, expected one of this machine: cpu, cuda, cuda:1 ({reason})"
        ) from error
    return device
