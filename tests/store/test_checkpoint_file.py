"""Checkpoints of strangers: the header is read, everything that it claims is held against the file."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from store.checkpoint_file import architecture_of, config_of, read_header
from store.errors import InvalidError


def file_of(header: object, content: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_what_safetensors_writes_is_read(tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(2, 3), "b": torch.zeros((), dtype=torch.int64), "c": torch.zeros(0, 4).half()}
    path = tmp_path / "x.safetensors"
    path.write_bytes(save(tensors, {"open_clip_config": '{"embed_dim": 1}'}))
    header = read_header(path)
    assert header.shapes == {"a": (2, 3), "b": (), "c": (0, 4)}
    assert config_of(header) == {"embed_dim": 1}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "cut short"),
        (b"1234567", "cut short"),
        (b"PK\x03\x04" * 10, "cut short"),
        ((2**63).to_bytes(8, "little") + b"{}", "cut short"),
        ((5 * 2**20).to_bytes(8, "little") + bytes(5 * 2**20), "announces"),
        (file_of(b"{"), "not JSON"),
        (file_of(b"[" * 100_000), "not JSON"),
        (file_of(b'{"a": 1, "a": 2}'), "twice"),
        (file_of([]), "not a JSON object"),
        (file_of({}), "no tensor"),
        (file_of({"__metadata__": {"a": "b"}}), "no tensor"),
        (file_of({"__metadata__": {"a": 1}, "w": entry()}, bytes(8)), "__metadata__"),
        (file_of({"w": 1}), "entry of tensor"),
        (file_of({"w": {**entry(), "more": 1}}, bytes(8)), "entry of tensor"),
        (file_of({"w": entry(shape=[-1])}, bytes(8)), "entry of tensor"),
        (file_of({"w": entry(shape=[1] * 9, offsets=[0, 4])}, bytes(4)), "entry of tensor"),
        (file_of({"w": entry(shape=[2**60])}, bytes(8)), "entry of tensor"),
        (file_of({"w": entry(offsets=[0])}, bytes(8)), "entry of tensor"),
        (file_of({"w": entry(offsets=[True, 8])}, bytes(8)), "entry of tensor"),
        (file_of({"w": entry("F8_E4M3")}, bytes(8)), "weights are"),
        (file_of({"w": entry(7)}, bytes(8)), "weights are"),
        (file_of({"w": entry(shape=[3])}, bytes(8)), "do not agree"),
        (file_of({"w": entry(shape=[2**40, 2**40], offsets=[0, 8])}, bytes(8)), "do not agree"),
        (file_of({"w": entry()}, bytes(7)), "8 bytes, and 7"),
        (file_of({"w": entry()}, bytes(9)), "8 bytes, and 9"),
        (file_of({"v": entry(), "w": entry()}, bytes(8)), "overlap"),
        (file_of({"v": entry(), "w": entry(offsets=[12, 20])}, bytes(20)), "leave bytes"),
    ],
)
def test_a_hostile_file_is_refused_with_its_reason(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(InvalidError, match=says) as caught:
        read_header(path)
    assert (caught.value.code, caught.value.param) == ("invalid_checkpoint", "file")


@pytest.mark.parametrize("config", ["", "[]", "{", "[" * 100_000])
def test_a_configuration_that_is_none_is_refused(tmp_path: Path, config: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(save({"w": torch.zeros(2)}, {"open_clip_config": config}))
    with pytest.raises(InvalidError, match="open_clip_config"):
        architecture_of(path, None)


def test_the_configuration_in_the_file_is_checked_as_any_other(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(save({"w": torch.zeros(2)}, {"open_clip_config": '{"embed_dim": 1}'}))
    assert architecture_of(path, "tiny") == "tiny"
    with pytest.raises(InvalidError) as caught:
        architecture_of(path, None)
    assert caught.value.param == "architecture.vision_cfg"
