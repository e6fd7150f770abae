"""Jupyter kernels that have imported the library already: each is forked from one process that did so once.

A page's kernel spends some seconds of processor time on importing PyTorch, pandas and matplotlib before its first line
runs: a quarter of the time of a page that shows finished results. Where many pages are run one after the other,
`session` makes them a kernel of its own, `NAME`, whose process only asks a server for a fork of itself and then stands
for it: it passes interruptions on, and when it is killed the fork ends. Modules are as after a first import, and what
a page does is done in its fork alone.

Where a process cannot be forked safely (macOS, Windows) the kernel is the ordinary one.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = "warm"
ORDINARY = "python3"
IMPORTED = ("ipykernel.kernelapp", "reproduction.contents", "reproduction.pages.findings")  # and all that these import
FOLDER = "SELM_WARM_KERNELS"  # the folder of a session: the server's socket, and the kernel's specification


@contextmanager
def session() -> Iterator[str]:
    """The name of the kernel to run notebooks in, for as long as the context lasts; a session within one is that one.

    Sets `JUPYTER_PATH` and `FOLDER` in the environment, for child processes too.
    """
    if sys.platform != "linux" or FOLDER in os.environ:
        yield NAME if FOLDER in os.environ else ORDINARY
        return
    before = {name: os.environ.get(name) for name in ("JUPYTER_PATH", FOLDER)}
    with tempfile.TemporaryDirectory(prefix="selm-") as folder:
        about = Path(folder) / "kernels" / NAME / "kernel.json"
        about.parent.mkdir(parents=True)
        argv = [sys.executable, "-m", __name__, "{connection_file}"]
        about.write_text(json.dumps({"argv": argv, "display_name": NAME, "language": "python"}))
        path = os.pathsep.join(filter(None, [folder, before["JUPYTER_PATH"]]))
        os.environ |= {"JUPYTER_PATH": path, FOLDER: folder}
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"{folder}/socket")
            listening.listen(64)  # who asks before the server has imported everything waits
            server = subprocess.Popen(
                [sys.executable, "-m", __name__, "serve", str(listening.fileno())],
                pass_fds=[listening.fileno()], stdin=subprocess.PIPE, start_new_session=True,
                env={**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline"},  # as a kernel has it
            )  # fmt: skip
        try:
            yield NAME
        finally:
            server.communicate()  # it ends when its standard input does, also where this process is killed
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _serve(listening: socket.socket) -> None:
    """Fork a kernel for everyone who asks, until standard input ends."""
    for module in IMPORTED:
        importlib.import_module(module)
    forks: set[int] = set()
    while True:
        ready, _, _ = select.select([listening, sys.stdin], [], [], 1.0)
        forks -= {pid for pid in forks if os.waitpid(pid, os.WNOHANG)[0]}  # so that their time counts as this one's
        if sys.stdin in ready:
            for pid in forks:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            os._exit(0)
        if listening not in ready:
            continue
        asking, _ = listening.accept()
        if (pid := os.fork()) == 0:
            try:
                _be_kernel(asking)
            except Exception:
                traceback.print_exc()
            finally:
                os._exit(0)  # a fork is never a second server
        forks.add(pid)
        asking.close()


def _be_kernel(asking: socket.socket) -> None:
    """In a fork: become the kernel that was asked for, as if it had been started where the question came from."""
    _, streams, _, _ = socket.recv_fds(asking, 1, 3)
    asked = json.loads(asking.makefile("rb", buffering=0).readline())
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.setsid()
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])

    def follow() -> None:
        while asking.recv(1):
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(0)  # who asked has ended

    threading.Thread(target=follow, daemon=True).start()
    from ipykernel.kernelapp import IPKernelApp

    IPKernelApp.launch_instance(["-f", *asked["arguments"], f"--IPKernelApp.parent_handle={os.getppid()}"])


def _stand_for_kernel(arguments: list[str]) -> None:
    """Ask for a kernel, and end when it ends."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(f"{os.environ[FOLDER]}/socket")
        about = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
        socket.send_fds(asking, [b" "], [0, 1, 2])
        asking.sendall(json.dumps(about).encode() + b"\n")
        signal.signal(signal.SIGINT, lambda *_: asking.sendall(b"i"))
        while asking.recv(1):
            pass


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve(socket.socket(fileno=int(sys.argv[2])))
    else:
        _stand_for_kernel(sys.argv[1:])
