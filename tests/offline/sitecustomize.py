"""Keeps a Python process off the network: only loopback and sockets of the machine itself are allowed.

`conftest.py` runs this file in the tests' own process and puts its folder on the PYTHONPATH, from which Python imports
`sitecustomize` in every process that it starts. An audit hook also sees what bypasses the class `socket.socket`.
"""

import sys
from _socket import AF_INET, AF_INET6  # as `socket` has them, but imported at no cost in every process

CONNECTIONS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
LOOKUPS = frozenset({"socket.getaddrinfo", "socket.gethostbyname"})


def _refuse_network(event: str, arguments: tuple[object, ...]) -> None:
    """Raise an `AssertionError`, which nothing takes for a fault of the network, before anything leaves the machine."""
    if event in CONNECTIONS:
        connection, address = arguments
        internet = getattr(connection, "family", None) in (AF_INET, AF_INET6)
        host = address[0] if internet and isinstance(address, tuple) else None
    elif event in LOOKUPS:
        host = arguments[0]
    else:
        return
    name = host.decode() if isinstance(host, bytes) else host
    if name not in (None, "", "localhost") and not _is_here(str(name)):
        raise AssertionError(f"a test wanted to connect to {name}")


def _is_here(host: str) -> bool:
    """Return whether an address is on this machine; of names, only `localhost` is."""
    from ipaddress import ip_address

    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


sys.addaudithook(_refuse_network)
