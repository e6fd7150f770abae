"""Where and from what a number comes."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from functools import lru_cache, partial
from pathlib import Path

import torch


def provenance(device: torch.device | str) -> dict[str, str]:
    """Where and from what a number comes: commit, device, torch's version and the date (UTC)."""
    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu {platform.machine()}"
    return {
        "commit": commit(),
        "device": f"{name}, {torch.get_num_threads()} threads" if device.type == "cpu" else name,
        "torch": torch.__version__,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
    }


def commit() -> str:
    """The checkout's commit, with '+' after it where the library differs from it.

    What `SELM_COMMIT` says comes first: in a copy whose history is not that of its code. 'unknown' outside a checkout.
    """
    return os.environ.get("SELM_COMMIT") or _commit_of(Path(__file__).resolve().parent.parent)


@lru_cache(maxsize=1)
def _commit_of(checkout: Path) -> str:
    """Asked once: a process runs the code that it has read, whatever is committed meanwhile."""
    if not (checkout / ".git").exists():  # an installation may lie inside another project's repository
        return "unknown"
    git = partial(subprocess.check_output, cwd=checkout, stderr=subprocess.DEVNULL, text=True)
    try:
        changed = git(["git", "status", "--porcelain", "--", "selm", "reproduction"]).strip()
        return git(["git", "rev-parse", "--short=12", "HEAD"]).strip() + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
