"""A program of the sandbox that breaks as its request says, for tests of whoever waits for its answers."""

import os
import time
from collections.abc import Iterator


def answers(request: str) -> Iterator[tuple[str, bytes]]:
    match request:
        case "echo":
            yield '"first"', b"with bytes"
            yield '{"second": [1, 2]}', b""
        case "die":
            os._exit(3)
        case "hang":
            time.sleep(60)
        case "drip":
            while True:  # a byte now and then: never silent for long, and never done
                os.write(1, b"\0")
                time.sleep(0.2)
        case "boast":
            yield '"large"', bytes(2 << 20)
        case "babble":
            yield "{", b""
        case "nest":
            yield "[" * 100_000, b""
        case "eat":
            yield '"eaten"', bytes(1 << 34)
