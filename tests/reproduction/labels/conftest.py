"""What tests of the label readers share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reproduction.cli import main


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Callable[[str, Path], list[str]]:
    """The lines that ``python -m reproduction data read NAME FILE`` prints."""

    def read(name: str, file: Path) -> list[str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["data", "read", name, str(file)])
        assert not ended.value.code
        return capsys.readouterr().out.splitlines()

    return read
