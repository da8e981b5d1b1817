"""Which code belongs to a pass: not another thread's, and not what a user's hook starts in the middle of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

Active = Callable[[], bool]
"""Whether the code that asks belongs to the watched forward."""

_open = threading.local()


class _Forward:
    """One watched forward: how deep its root is in itself, and how many passes that a user's hook started are open."""

    def __init__(self) -> None:
        self.thread, self.depth, self.interrupted = threading.get_ident(), 0, 0

    def active(self) -> bool:
        return threading.get_ident() == self.thread and self.depth <= 1 and not self.interrupted

    def enter(self, *_: Any) -> None:
        self.depth += threading.get_ident() == self.thread

    def leave(self, *_: Any) -> None:
        self.depth -= threading.get_ident() == self.thread


@contextmanager
def interrupting() -> Iterator[list[_Forward]]:
    """Watched forwards that are under way on this thread see nothing for the duration."""
    forwards: list[_Forward] = vars(_open).setdefault("forwards", [])
    under_way = [forward for forward in forwards if forward.depth > 0]
    for forward in under_way:
        forward.interrupted += 1
    try:
        yield forwards
    finally:
        for forward in under_way:
            forward.interrupted -= 1


@contextmanager
def watched(root: nn.Module) -> Iterator[Active]:
    """The next forward of ``root`` on this thread is the watched one; forwards of ``root`` inside it are not."""
    this = _Forward()
    with interrupting() as forwards, ExitStack() as stack:
        stack.callback(root.register_forward_pre_hook(this.enter, prepend=True).remove)
        stack.callback(root.register_forward_hook(this.leave, always_call=True).remove)
        forwards.append(this)
        stack.callback(forwards.remove, this)
        yield this.active
