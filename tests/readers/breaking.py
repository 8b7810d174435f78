"""A decoder that some images break as a flaw in a library would."""

from pathlib import Path

from tests.service_fixtures import picture

BREAKING = """
import os, struct
from readers.sandbox import image_decoding
from readers.sandbox.program import frame, run
real = image_decoding.inspect_image
once = os.open({once!r}, os.O_RDWR | os.O_CREAT)
def inspect_image(image, **limits):
    if image == b"crash": os.abort()
    if image == b"hang":
        while True: pass
    if image == b"lie": os.write(1, b"[1, 2\\n")
    if image == b"boast": os.write(1, frame('[1, 1, "PNG", "00", [999999999999, 0]]'))
    if image == b"brag": os.write(1, struct.pack(">2Q", 2, 999999999999))
    if image == b"owe": os.write(1, frame('[1, 1, "PNG", "00", [1]]', b"x"))
    if image == b"flood":
        while True: os.write(1, bytes(65536))
    if image == b"once" and not os.pread(once, 1, 0):
        os.write(once, b"x")
        os.abort()
    if image == b"environment": raise image_decoding.ImageRefused(" ".join(sorted(os.environ)))
    return real(image if image != b"once" else {good!r}, **limits)
image_decoding.inspect_image = inspect_image
run("readers.sandbox.image_child")
"""


def breaking_program(folder: Path) -> str:
    """The program of the decoder; in `folder` it notes that it has broken over the image that breaks it once."""
    return BREAKING.format(once=str(folder / "once"), good=picture(0))
