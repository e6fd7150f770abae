"""Files of tensors: whole and unaltered, or refused in one line; written whole, or not at all."""

from __future__ import annotations

import errno
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from selm import checkpoints, files
from selm.errors import InputError


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "weight": torch.randn(4, 3, 2, 2, generator=generator).contiguous(memory_format=torch.channels_last),
        "half": torch.randn(5, generator=generator).bfloat16(),
        "count": torch.tensor(7),
        "flags": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
    }


def refused(path: Path, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        checkpoints.load_tensors(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_round_trip(tmp_path, tensors):
    file = tmp_path / "new" / "folder" / "t.safetensors"
    checkpoints.save_tensors(file, tensors, {"step": "12"})
    back, meta = checkpoints.load_tensors(file)
    assert back.keys() == tensors.keys()
    for name, value in tensors.items():
        assert back[name].dtype == value.dtype
        assert torch.equal(back[name], value)
    assert meta["step"] == "12"
    assert checkpoints.read_meta(file) == meta
    assert os.listdir(file.parent) == ["t.safetensors"]


def test_tensors_that_share_memory_are_saved(tmp_path):
    whole = torch.arange(6.0)
    checkpoints.save_tensors(tmp_path / "t", {"whole": whole, "part": whole[2:4], "turned": whole.view(2, 3).T})
    back, _ = checkpoints.load_tensors(tmp_path / "t")
    assert back["part"].tolist() == [2, 3]
    assert back["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_the_digest_depends_on_names_shapes_dtypes_and_bytes_but_not_on_order_or_layout(tensors):
    one = checkpoints.digest(tensors)
    assert one == checkpoints.digest(dict(reversed(tensors.items())))
    assert one == checkpoints.digest(tensors | {"weight": tensors["weight"].contiguous()})
    others = [
        tensors | {"weight": tensors["weight"].reshape(3, 4, 2, 2)},
        tensors | {"count": torch.tensor(8)},
        tensors | {"count": torch.tensor(7, dtype=torch.int32)},
        {("width" if name == "weight" else name): value for name, value in tensors.items()},
        {name: value for name, value in tensors.items() if name != "empty"},
    ]
    assert len({one, *(checkpoints.digest(other) for other in others)}) == 6


def test_one_flipped_bit_anywhere_in_the_tensors_is_noticed(tmp_path, tensors):
    file = tmp_path / "t.safetensors"
    checkpoints.save_tensors(file, tensors)
    good = file.read_bytes()
    (length,) = struct.unpack("<Q", good[:8])
    for at in range(8 + length, len(good), 7):
        bad = bytearray(good)
        bad[at] ^= 1
        file.write_bytes(bad)
        # the flags' bytes may only be 0 or 1: some readers say so before the digest does
        refused(file, "altered since it was written|damaged")


def test_a_file_cut_short_anywhere_is_noticed(tmp_path, tensors):
    file = tmp_path / "t.safetensors"
    checkpoints.save_tensors(file, tensors)
    good = file.read_bytes()
    for length in (0, 3, 8, 100, len(good) // 2, len(good) - 1):
        file.write_bytes(good[:length])
        refused(file, "cut short")
    file.write_bytes(good + b"\0")
    refused(file, "damaged")


@pytest.mark.parametrize(
    "content",
    [
        b"not tensors at all, but a text that is long enough", struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 4) + b"null", struct.pack("<Q", 21) + b'{"__metadata__":null}',
        struct.pack("<Q", 3) + b"\xff\xfe{", struct.pack("<Q", 1 << 60),
    ],
)  # fmt: skip
def test_a_file_of_something_else_is_refused(tmp_path, content):
    file = tmp_path / "t.safetensors"
    file.write_bytes(content)
    refused(file, "not a safetensors file|format 'unknown'")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    refused(tmp_path / "nothing.safetensors", "no such file")
    refused(tmp_path, "not a safetensors file")


def test_another_format_version_is_named(tmp_path, tensors, monkeypatch):
    file = tmp_path / "t.safetensors"
    monkeypatch.setattr(checkpoints, "FORMAT", "selm-2")
    checkpoints.save_tensors(file, tensors)
    monkeypatch.undo()
    refused(file, "format 'selm-2', this version of selm reads 'selm-1'")


def test_a_safetensors_file_of_another_program_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "t.safetensors")
    refused(tmp_path / "t.safetensors", "format 'unknown'")


# ---------------------------------------------------------------------------------------------- writing atomically


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("fails", ["os.fsync", "os.replace", "safetensors.torch.save_file"])
def test_a_full_disk_leaves_the_old_tensors_and_no_rubbish(tmp_path, tensors, monkeypatch, fails):
    file = tmp_path / "t.safetensors"
    checkpoints.save_tensors(file, {"old": torch.ones(3)})
    monkeypatch.setattr(fails, full_disk)
    with pytest.raises(InputError, match=r"cannot write .*t\.safetensors: the disk is full") as caught:
        checkpoints.save_tensors(file, tensors)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert checkpoints.load_tensors(file)[0].keys() == {"old"}
    assert os.listdir(tmp_path) == ["t.safetensors"]


@pytest.mark.parametrize("fails", ["os.fsync", "os.replace", "pathlib.Path.write_text"])
def test_a_full_disk_leaves_the_old_text_and_no_rubbish(tmp_path, monkeypatch, fails):
    file = tmp_path / "run.json"
    files.write_json(file, {"a": 1})
    monkeypatch.setattr(fails, full_disk)
    with pytest.raises(InputError, match=r"cannot write .*run\.json: the disk is full"):
        files.write_json(file, {"a": 2})
    monkeypatch.undo()
    assert files.read_json(file) == {"a": 1}
    assert os.listdir(tmp_path) == ["run.json"]


LIMITED = """
import resource, signal, sys, torch
from selm import checkpoints
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    checkpoints.save_tensors(sys.argv[1], {"big": torch.zeros(100_000)})
except checkpoints.InputError as error:
    print(error)
    sys.exit(2)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limit to set")
def test_a_write_that_the_system_stops_half_way_leaves_the_old_file(tmp_path):
    file = tmp_path / "t.safetensors"
    checkpoints.save_tensors(file, {"old": torch.ones(3)})
    done = subprocess.run([sys.executable, "-c", LIMITED, str(file)], capture_output=True, text=True,
                          cwd=Path(__file__).parents[2], check=False)  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stdout.startswith(f"cannot write {file}")
    assert len(done.stdout.splitlines()) == 1
    assert checkpoints.load_tensors(file)[0].keys() == {"old"}
    assert os.listdir(tmp_path) == ["t.safetensors"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for write in (
        lambda path: checkpoints.save_tensors(path, {"a": torch.zeros(1)}),
        lambda path: files.write_json(path, {}),
    ):
        with pytest.raises(InputError, match=r"cannot write .*file"):
            write(tmp_path / "file" / "below" / "t")


# ------------------------------------------------------------------------------------------------------ JSON


def test_json_round_trip_and_bad_json(tmp_path):
    file = tmp_path / "a.json"
    files.write_json(file, {"b": [1, 2.5, None], "a": "é"})
    assert files.read_json(file) == {"a": "é", "b": [1, 2.5, None]}
    for content in (b"", b'{"a": ', b"\xff\xff"):
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.json: not valid JSON"):
            files.read_json(file)
    with pytest.raises(InputError, match=r"b\.json: no such file"):
        files.read_json(tmp_path / "b.json")
    with pytest.raises(InputError, match="cannot read"):
        files.read_json(tmp_path)


# ------------------------------------------------------------------------------------------------- state dicts


def test_load_into_takes_what_fits(tmp_path):
    one, two = nn.Linear(3, 2), nn.Linear(3, 2)
    checkpoints.load_into(two, one.state_dict(), "m")
    assert torch.equal(one.weight, two.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("bias"), "m.safetensors: lacks 'bias', so it belongs to another model or version"),
        (lambda s: s.update(extra=torch.zeros(1)), "m.safetensors: has 'extra', which this model does not know"),
        (lambda s: s.update(weight=torch.zeros(2, 4)),
         "m.safetensors: 'weight' has shape (2, 4), the model wants (2, 3)"),
    ],
)  # fmt: skip
def test_load_into_names_the_first_entry_that_does_not_fit_and_changes_nothing(change, message):
    module = nn.Linear(3, 2)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = {name: torch.zeros_like(value) for name, value in before.items()}
    change(state)
    with pytest.raises(InputError) as caught:
        checkpoints.load_into(module, state, "m.safetensors")
    assert str(caught.value) == message
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_headers_stay_readable_by_other_programs(tmp_path, tensors):
    file = tmp_path / "t.safetensors"
    checkpoints.save_tensors(file, tensors, {"step": "1"})
    with open(file, "rb") as handle:
        (length,) = struct.unpack("<Q", handle.read(8))
        header = json.loads(handle.read(length))
    assert header["weight"]["shape"] == [4, 3, 2, 2]
    assert header["half"]["dtype"] == "BF16"


def test_tensors_of_nothing_are_kept(tmp_path):
    nothing = {"a": torch.zeros(0, dtype=torch.int64), "b": torch.zeros(3, 0), "c": torch.ones(2)}
    checkpoints.save_tensors(tmp_path / "x.safetensors", nothing)
    back, _ = checkpoints.load_tensors(tmp_path / "x.safetensors")
    assert {name: (value.shape, value.dtype) for name, value in back.items()} == {
        name: (value.shape, value.dtype) for name, value in nothing.items()
    }


def test_weights_may_be_read_by_whom_any_file_may(tmp_path: Path) -> None:
    checkpoints.save_tensors(tmp_path / "w.safetensors", {"w": torch.zeros(2)})
    (tmp_path / "plain").touch()
    assert (tmp_path / "w.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode
