"""The suite's own promise: no network."""

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest


def test_no_test_reaches_another_machine():
    with socket.socket() as client, pytest.raises(ConnectionRefusedError, match="without a network"):
        client.connect(("192.0.2.1", 80))
    with socket.socket() as client, pytest.raises(ConnectionRefusedError, match="without a network"):
        client.connect_ex(("192.0.2.1", 80))


def test_no_test_looks_up_a_name():
    with pytest.raises(socket.gaierror, match="without a network"):
        socket.create_connection(("huggingface.co", 443))


def test_this_machine_can_be_reached():
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(server.accept)
        with socket.create_connection(("localhost", server.getsockname()[1])):
            connection, _ = accepted.result(timeout=5)
            connection.close()
