"""What holds for the whole suite: no network, one thread."""

import os

# Before any test imports them: the hub's libraries and torch read these once.
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import ipaddress
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.slow_tests import mark_slow


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what -m does not select
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark_slow(items)


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Refuse every connection that leaves this machine, and every look-up of a name that is not this machine's."""
    look_up = socket.getaddrinfo

    def checked(connect: Any) -> Any:
        def connect_here(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_here(address[0]):
                raise ConnectionRefusedError(f"a test connects to {address[0]!r}; tests run without a network")
            return connect(self, address)

        return connect_here

    def look_up_here(host: Any, *args: Any, **options: Any) -> Any:
        if not _is_here(host):
            raise socket.gaierror(f"a test looks up {host!r}; tests run without a network")
        return look_up(host, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, checked(getattr(socket.socket, name)))
        patch.setattr(socket, "getaddrinfo", look_up_here)
        yield


def _is_here(host: str | bytes | None) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(str(name).partition("%")[0]).is_loopback
    except ValueError:
        return False
