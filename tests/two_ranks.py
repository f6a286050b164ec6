"""Run a program as two ranks of torch.distributed, in forks of this process; ``torchrun`` in a tenth of its time.

Run it through the fork server, with torchrun's arguments: ``SCRIPT ARGUMENTS`` or ``-m MODULE ARGUMENTS``. The exit
code is 1 if one of the ranks failed; the other one is killed then.
"""

import os
import runpy
import signal
import socket
import sys

RANKS = 2


def main() -> None:
    """Fork the ranks, and in this process wait for them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(RANKS)}
    os.environ.update(shared, LOCAL_WORLD_SIZE=str(RANKS))
    processes = set()
    for rank in range(RANKS):
        process = os.fork()
        if process == 0:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
            _run(sys.argv[1:])
            return
        processes.add(process)
    failed = False
    while processes:
        process, status = os.wait()
        processes.remove(process)
        if status and not failed:
            failed = True
            for other in processes:
                os.kill(other, signal.SIGKILL)
    sys.exit(failed)


def _run(command: list[str]) -> None:
    if command[0] == "-m":
        sys.argv = command[1:]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = command
        sys.path[0] = os.path.dirname(os.path.abspath(command[0]))
        runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    main()
