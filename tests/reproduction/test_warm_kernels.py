"""Kernels forked from one process: they are where and what was asked for, can be interrupted, and end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel

from reproduction import warm_kernels

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")
Kernel = tuple[KernelManager, BlockingKernelClient]


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    with warm_kernels.session() as name:
        monkeypatch.setenv("SELM_ASKED", "only here")
        manager, client = start_new_kernel(kernel_name=name, cwd=str(tmp_path))
        yield manager, client
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def said(client: BlockingKernelClient, code: str) -> str:
    out: list[str] = []
    client.execute_interactive(code, timeout=60, output_hook=lambda m: out.append(m["content"].get("text", "")))
    return "".join(out).strip()


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_page_runs_where_and_as_it_was_asked_for(kernel: Kernel, tmp_path: Path) -> None:
    manager, client = kernel
    code = "import os, sys; print(os.getcwd(), os.environ['SELM_ASKED'], 'torch' in sys.modules, os.getpid())"
    folder, *rest, pid = said(client, code).split()
    assert Path(folder) == tmp_path and rest == ["only", "here", "True"]
    before = said(client, "import reproduction.contents as c; c.mark = 1; print(c.mark)")
    assert before == "1"
    manager.restart_kernel(now=True)  # another fork, without what this one has done; this one is gone
    client.wait_for_ready(timeout=60)
    assert said(client, "import reproduction.contents as c; print(hasattr(c, 'mark'))") == "False"
    _wait_for_end(int(pid))


def test_pages_under_pytest_run_in_these_kernels(request: pytest.FixtureRequest) -> None:
    """In every worker: an option that the main process sets after it has been read does not reach the others."""
    if not (request.config.option.nbval or request.config.option.nbval_lax):
        pytest.skip("no pages in this session: pytest --nbval-lax tests book")
    assert request.config.option.nbval_kernel_name == warm_kernels.NAME


def test_a_page_can_be_interrupted(kernel: Kernel) -> None:
    manager, client = kernel
    code = "import time\nprint('begun', flush=True)\ntime.sleep(60)"
    asked = client.execute(code, stop_on_error=False)  # else what is asked at once after it may be dropped
    while client.get_iopub_msg(timeout=30)["content"].get("text", "").strip() != "begun":
        pass
    manager.interrupt_kernel()
    while (answer := client.get_shell_msg(timeout=30))["parent_header"]["msg_id"] != asked:
        assert answer  # to whether the kernel is ready
    assert answer["content"]["ename"] == "KeyboardInterrupt"
    assert said(client, "print(2)") == "2"


def test_a_page_ends_with_the_process_that_stands_for_it(kernel: Kernel) -> None:
    manager, client = kernel
    pid = int(said(client, "import os; print(os.getpid())"))
    assert lives(pid)
    manager.shutdown_kernel(now=True)
    _wait_for_end(pid)


def _wait_for_end(pid: int) -> None:
    deadline = time.monotonic() + 20
    while lives(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.05)


def test_a_session_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(warm_kernels.FOLDER, raising=False)
    path = os.environ.get("JUPYTER_PATH")
    with warm_kernels.session() as name:
        folder = Path(os.environ[warm_kernels.FOLDER])
        assert name == warm_kernels.NAME and (folder / "kernels" / name / "kernel.json").exists()
        with warm_kernels.session() as again:
            assert again == name and os.environ[warm_kernels.FOLDER] == str(folder)
    assert not folder.exists() and warm_kernels.FOLDER not in os.environ and os.environ.get("JUPYTER_PATH") == path
