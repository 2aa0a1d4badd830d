"""The process that Pulumi starts for a plugin: `python -IS plugin.py SOCKET PACKAGE CLOUD`.

It asks the server at SOCKET for a stand-in of PACKAGE on the folder CLOUD and hands over its own output. The stand-in ends when
this process does.
"""

import os
import socket
import sys


def main(path: str, package: str, cloud: str) -> None:
    engine = os.getppid()
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        socket.send_fds(server, [f"{package} {cloud}".encode()], [1, 2])
        for output in (1, 2):
            os.close(output)
        server.settimeout(1)
        # the engine kills its plugins; one whose engine was killed itself ends here
        while os.getppid() == engine:
            try:
                server.recv(1)
                break
            except TimeoutError:
                continue


if __name__ == "__main__":
    main(*sys.argv[1:])
