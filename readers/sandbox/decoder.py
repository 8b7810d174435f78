"""One process that decodes, and what is done when an image breaks it."""

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from readers.limits import DecoderLimits
from readers.sandbox.confinement import confined_environment, warn_of_missing
from readers.sandbox.image_decoding import Inspected

_PROGRAM = "import sys; from readers.sandbox.image_child import answer; answer(sys.stdin.buffer, sys.stdout.buffer)"
_START_SECONDS = 120
_LONGEST_ANSWER = 1 << 16
_LARGEST_THUMBNAIL = 1 << 19  # bytes: more than 256 × 256 pixels of noise take


@dataclass(frozen=True, slots=True)
class Refused:
    """One that does not; `broke` if the decoder did not survive it."""

    reason: str
    broke: bool = False


class DecoderNotStartedError(Exception):
    """The program does not even begin: no image's fault."""


class _BrokenError(Exception):
    """The process is no good any more."""


class Decoder:
    """A process that is started when it is needed and again when it broke. One thread at a time; `close` may come from
    another."""

    def __init__(self, limits: DecoderLimits) -> None:
        self._limits = limits
        self._images = tempfile.TemporaryFile()  # noqa: SIM115  closed in `close`
        self._process: subprocess.Popen[bytes] | None = None
        self._heard = b""
        self._closed = False

    def inspect(self, images: Sequence[bytes]) -> list[Inspected | Refused]:
        """What each image is. One that breaks the process twice is refused; once may be the machine's fault.

        Raises:
            DecoderNotStartedError: there is no process to be had, or no decoder any more.
            OSError: the images cannot be put down for it.
        """
        self._images.seek(0)
        self._images.writelines(images)
        self._images.flush()
        lengths = [len(image) for image in images]
        found: list[Inspected | Refused] = []
        broken_at = -1
        while len(found) < len(images):
            process = self._process or self._start()
            try:
                self._say(process, [len(found), lengths])
                while len(found) < len(images):
                    found.append(self._answer(process))
            except _BrokenError as error:
                self._end()
                if broken_at == len(found):
                    found.append(Refused(str(error), broke=True))
                else:
                    broken_at = len(found)
        return found

    def close(self) -> None:
        """End the process; whoever waits for it finds it broken."""
        self._closed = True
        self._end()
        self._images.close()

    def _start(self) -> subprocess.Popen[bytes]:
        if self._closed:
            raise DecoderNotStartedError("the decoder is closed")
        file = self._images.fileno()
        process = subprocess.Popen(  # noqa: S603  our own program
            [sys.executable, "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            pass_fds=(file,),
            env=confined_environment(),
        )
        self._process, self._heard = process, b""
        limits = self._limits
        told = {"fd": file, "memory_bytes": limits.memory_bytes, "seconds": limits.seconds}
        try:
            self._say(process, {**told, "max_pixels": limits.max_pixels, "thumbnails": limits.thumbnails})
            warn_of_missing(*json.loads(self._line(process, _START_SECONDS)))
        except (_BrokenError, ValueError) as error:
            self._end()
            raise DecoderNotStartedError(f"the image decoder does not start: {error}") from None
        return process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _say(self, process: subprocess.Popen[bytes], words: object) -> None:
        assert process.stdin is not None  # noqa: S101
        with suppress(BrokenPipeError):  # then there will be no answer
            process.stdin.write(json.dumps(words).encode() + b"\n")

    def _line(self, process: subprocess.Popen[bytes], seconds: float) -> bytes:
        while (end := self._heard.find(b"\n")) < 0:
            if len(self._heard) > _LONGEST_ANSWER:
                raise _BrokenError("the decoder broke down over it")
            self._hear(process, seconds)
        line, self._heard = self._heard[:end], self._heard[end + 1 :]
        return line

    def _thumbnail(self, process: subprocess.Popen[bytes], length: int) -> bytes:
        if not 0 <= length <= _LARGEST_THUMBNAIL:
            raise _BrokenError("the decoder broke down over it")
        while len(self._heard) < length:
            self._hear(process, self._limits.seconds)
        content, self._heard = self._heard[:length], self._heard[length:]
        return content

    def _hear(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        assert process.stdout is not None  # noqa: S101
        if not select.select([process.stdout], [], [], seconds)[0]:
            raise _BrokenError(f"the decoder took more than {seconds} s over it")
        more = os.read(process.stdout.fileno(), _LONGEST_ANSWER)
        if not more:
            raise _BrokenError("the decoder broke down over it")
        self._heard += more

    def _answer(self, process: subprocess.Popen[bytes]) -> Inspected | Refused:
        """What it says of one image. It has read hostile bytes, so nothing that it says is taken on trust."""
        try:
            answer = json.loads(self._line(process, self._limits.seconds))
            if isinstance(answer, str):
                return Refused(answer)
            width, height, image_format, pixels, lengths = answer
            thumbnails = tuple(self._thumbnail(process, length) for length in lengths)
            if len(thumbnails) != len(self._limits.thumbnails):
                raise _BrokenError("the decoder broke down over it")
            return Inspected(width, height, image_format, bytes.fromhex(pixels), thumbnails)
        except (ValueError, TypeError):
            raise _BrokenError("the decoder broke down over it") from None
