"""Arrays and checkpoints: pickles, headers that ask for terabytes, numbers that are none."""

import io
import pickle
import zipfile

import numpy as np

from tests.hostile.case import Case, embeddings, entry, fixed, npy, npy_header, safetensors, zip_of

GOOD = np.eye(4, 3, dtype=np.float32)
TINY = {"architecture": "tiny"}


class _Code:
    def __reduce__(self) -> tuple[object, ...]:
        return (open, ("evil-was-here", "w"))


PICKLE = pickle.dumps(_Code())
TORCH = zip_of({"archive/data.pkl": PICKLE, "archive/version": "3\n", "archive/data/0": bytes(24)}, zipfile.ZIP_STORED)


def _pickled() -> bytes:
    return npy(np.array([[_Code(), 1]] * 4, dtype=object), allow_pickle=True)


def _with(value: float) -> bytes:
    image = GOOD.copy()
    image[2, 1] = value
    return embeddings(npy(image))


def _npz_of_pickles() -> bytes:
    out = io.BytesIO()
    np.savez(out, image=np.array([[_Code()]], dtype=object), text=GOOD)
    return out.getvalue()


def _two(image: object, data: int = 24) -> bytes:
    return safetensors({"image": image, "text": entry()}, bytes(data))


ARRAYS = {
    "pickled objects": (_pickled, ("image.npy", "pickled objects")),
    "four tebibytes by a header": (lambda: npy_header("(1073741824, 1024)"), ("image.npy", "1073741824 rows")),
    "five terabytes within the caps": (lambda: npy_header("(20000000, 65536)"), ("image.npy", "but 0 bytes")),
    "fewer bytes than its shape": (lambda: npy_header("(4, 3)") + bytes(47), ("image.npy", "47 bytes")),
    "a negative shape": (lambda: npy_header("(-4, -3)") + bytes(48), ("image.npy", "(-4, -3)")),
    "a header of four gigabytes": (lambda: npy_header("(4, 3)", version=b"\2\0", length=0xFFFFFFFF), ("image.npy",)),
    "a header that is a program": (lambda: npy_header("(4, 3)", "__import__('os').abort()"), ("image.npy",)),
    "a header nested without end": (lambda: npy_header("(" * 4000), ("image.npy",)),
    "whole numbers": (lambda: npy(np.ones((4, 3), np.int64)), ("image.npy", "<i8")),
    "raw records": (lambda: npy(np.zeros((4, 3), [("a", "f4")])), ("image.npy", "dtype")),
    "another number of rows": (lambda: npy(np.eye(5, 3, dtype=np.float32)), ("(5, 3)", "(4, 3)")),
    "no rows": (lambda: npy(np.empty((0, 3), np.float32)), ("image.npy", "(0, 3)")),
    "nothing": (lambda: b"", ("image.npy",)),
}
SAFETENSORS = {
    "a header of 2^63 bytes": (lambda: safetensors({}, length=1 << 63), ("x.safetensors",)),
    "a header of 100 MB": (lambda: safetensors(b" " * 100_000_000), ("x.safetensors",)),
    "a header that is not JSON": (lambda: safetensors(b"{nonsense"), ("not JSON",)),
    "a header nested without end": (lambda: safetensors(b'{"a":' * 50_000), ("not JSON",)),
    "no tensor called text": (lambda: safetensors({"image": entry()}, bytes(24)), ("no tensor text",)),
    "a tensor of 2^124 numbers": (lambda: _two(entry(shape=(1 << 62, 1 << 62))), ("tensor image",)),
    "offsets beyond the file": (lambda: _two(entry(offsets=(1 << 40, (1 << 40) + 24))), ("tensor image",)),
    "a dtype nobody knows": (lambda: _two(entry("F7")), ("tensor image", "F7")),
}
CHECKPOINTS = {
    "a pickle": (lambda: PICKLE, ("safetensors",)),
    "a .pt": (lambda: TORCH, ("safetensors",)),
    "nothing": (lambda: b"", ("safetensors",)),
    "a header of 2^63 bytes": (lambda: safetensors({}, length=1 << 63), ("cut short",)),
    "a header of 5 MB": (lambda: safetensors(b" " * 5_000_000), ("5,000,000 bytes",)),
    "a header nested without end": (lambda: safetensors(b'{"a":' * 50_000), ("not JSON",)),
    "a tensor twice": (lambda: safetensors(b'{"w": {}, "w": {}}'), ("twice",)),
    "no tensor": (lambda: safetensors({}), ("no tensor",)),
    "tensors that overlap": (lambda: safetensors({"a": entry(), "b": entry()}, bytes(24)), ("overlap",)),
    "a gap before a tensor": (lambda: safetensors({"w": entry(offsets=(8, 32))}, bytes(32)), ("bytes between",)),
    "more bytes than its tensors": (lambda: safetensors({"w": entry()}, bytes(99)), ("99 follow",)),
    "a shape of 2^60": (lambda: safetensors({"w": entry(shape=(1 << 60,))}, bytes(24)), ("tensor 'w'",)),
    "a dtype nobody knows": (lambda: safetensors({"w": entry("F7")}, bytes(24)), ("tensor 'w'", "F7")),
    "metadata that is no text": (
        lambda: safetensors({"__metadata__": {"a": 1}, "w": entry()}, bytes(24)),
        ("metadata",),
    ),
}
CONFIGURATIONS = {
    "an architecture nobody knows": ("ViT-B-33", ("architecture", "ViT-B-33")),
    "an architecture as a path": ("../../evil", ("architecture", "evil")),
    "an architecture of a trillion weights": (
        '{"embed_dim": 1000000, "vision_cfg": {"image_size": 224, "layers": 99999, "width": 1000000, "patch_size": 16},'
        ' "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 1000000, "heads": 8, "layers": 99999}}',
        ("architecture",),
    ),
    "an architecture with a tokenizer from elsewhere": (
        '{"embed_dim": 8, "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "patch_size": 16},'
        ' "text_cfg": {"hf_tokenizer_name": "../../evil"}}',
        ("architecture",),
    ),
}


def _any(make: object) -> object:
    return lambda _: make()  # type: ignore[operator]


CASES = [
    *(
        Case(f"npy: {name}", "failed", words, fixed(lambda m: embeddings(m()), make))
        for name, (make, words) in ARRAYS.items()
    ),
    *(
        Case(
            f"npy: {name} among the numbers",
            "rejected",
            ("row 2", "image embedding"),
            fixed(_with, value),
            kept=3,
        )
        for name, value in {"NaN": float("nan"), "an infinity": float("inf")}.items()
    ),
    Case("npz of pickled objects", "failed", ("image.npy", "pickled objects"), lambda _: _npz_of_pickles(), "x.npz"),
    Case("a pickle", "failed", ("pickle",), lambda _: PICKLE, "x.pkl"),
    Case("a .pt", "failed", (".pt", "pickled objects"), lambda _: TORCH, "x.pt"),
    *(
        Case(f"safetensors: {name}", "failed", words, fixed(make), "x.safetensors")
        for name, (make, words) in SAFETENSORS.items()
    ),
    *(
        Case(f"checkpoint: {name}", "refused", ("file", *words), fixed(make), "x.safetensors", "models", TINY)
        for name, (make, words) in CHECKPOINTS.items()
    ),
    *(
        Case(
            f"checkpoint: {name}",
            "refused",
            words,
            lambda _: safetensors({"w": entry()}, bytes(24)),
            "x.safetensors",
            "models",
            {"architecture": architecture},
        )
        for name, (architecture, words) in CONFIGURATIONS.items()
    ),
]
