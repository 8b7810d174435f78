"""Loopback ports."""

import errno
import socket

from standalone.errors import PortTakenError

HOST = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    try:
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def check_free(port: int) -> None:
    """Return if the port can be listened on.

    Raises:
        PortTakenError: somebody else does.
        OSError: it cannot, for another reason.
    """
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise PortTakenError(port) from error
