"""Pauses and blocking work, for either kind of client."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import anyio
import anyio.to_thread

Result = TypeVar("Result")


def pause(seconds: float) -> None:
    time.sleep(seconds)


async def pause_async(seconds: float) -> None:
    await anyio.sleep(seconds)


def blocking(function: Callable[..., Result], *arguments: Any) -> Result:
    """Do what reads or writes files."""
    return function(*arguments)


async def blocking_async(function: Callable[..., Result], *arguments: Any) -> Result:
    """The same on another thread."""
    return await anyio.to_thread.run_sync(function, *arguments)
