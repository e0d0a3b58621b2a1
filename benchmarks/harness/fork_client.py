"""A stand-in for Python that sends its command line to a `fork_server`, and ends as the program does.

    python -I -S benchmarks/harness/fork_client.py SOCKET PYTHON EXECUTABLE [PROGRAM ARGUMENTS ...]

Command lines with neither a program file nor `-m`, such as those with `-c`, are run by PYTHON itself. Only small
modules are imported: it starts a thousand times.
"""

import json
import os
import socket
import sys

path, python, executable, *command = sys.argv[1:]
if not command or (command[0] != "-m" and not os.path.isfile(command[0])):  # noqa: PTH113
    os.execv(python, [python, *command])
order = {"executable": executable, "command": command, "folder": os.getcwd(), "environment": dict(os.environ)}  # noqa: PTH109
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(path)
    socket.send_fds(connection, [b" "], [0, 1, 2])
    connection.sendall(json.dumps(order).encode())
    connection.shutdown(socket.SHUT_WR)
    status = int(connection.recv(16) or 1)
sys.exit(status if status >= 0 else 128 - status)
