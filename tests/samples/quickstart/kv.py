"""Just enough of redis's protocol for one counter."""

import os
import socket

ADDRESS = os.environ["KV_PORT_6379_TCP_ADDR"], int(os.environ["KV_PORT_6379_TCP_PORT"])


def ask(*words):
    """Sends one command and gives back its reply, which fits in a line."""
    with socket.create_connection(ADDRESS, timeout=5) as connection:
        connection.sendall(" ".join(words).encode() + b"\r\n")
        reply = connection.makefile("rb")
        line = reply.readline().decode().strip()
        if line.startswith("-"):
            raise RuntimeError(line)
        if line.startswith("$"):
            return reply.readline().decode().strip() if line != "$-1" else None
        return line[1:]
