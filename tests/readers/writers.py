"""Data sets as the libraries write them that people use, and the pictures in them."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import webdataset
from PIL import Image


def jpeg(seed: int, size: int = 16) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "JPEG")
    return out.getvalue()


def webdataset_shard(path: Path, first: int, count: int) -> None:
    """`count` samples from number `first` on, as `webdataset.TarWriter` writes them."""
    with webdataset.TarWriter(str(path)) as writer:
        for n in range(first, first + count):
            writer.write({"__key__": f"{n:09d}", "jpg": jpeg(n), "txt": f"picture {n}", "json": {"label": n % 2}})


def about(n: int) -> dict[str, object]:
    """What img2dataset says of a sample: the columns of its writer's schema."""
    return {
        "url": f"http://example.org/{n}.jpg",
        "caption": f"picture {n}",
        "key": f"{n:09d}",
        "status": "success",
        "error_message": None,
        "width": 16,
        "height": 16,
        "original_width": 32,
        "original_height": 32,
        "exif": "{}",
        "sha256": f"{n:064x}",
    }


def img2dataset_tar(path: Path, numbers: range) -> None:
    """Its webdataset writer is webdataset's own `TarWriter`."""
    with webdataset.TarWriter(str(path)) as writer:
        for n in numbers:
            writer.write({"__key__": f"{n:09d}", "jpg": jpeg(n), "txt": f"picture {n}", "json": about(n)})


def stats(path: Path) -> None:
    path.write_text(json.dumps({"count": 2, "successes": 2, "failed_to_download": 0, "status_dict": {"success": 2}}))


def zip_of(folder: Path, target: Path, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """The whole of a folder, as a person would zip it."""
    with zipfile.ZipFile(target, "w", compression) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return target
