"""Long runs that can be cut short: numbered batches, each a file of its own, shared by the processes of ``torchrun``.

What a batch holds is fixed by its number, so results are the same whatever process makes it, and when.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from trt_cam.errors import DatasetError, InputError, OutputError, TrtCamError

RECORD = "run.json"


@dataclass(frozen=True)
class World:
    """The processes that share a run.

    Attributes
    ----------
    rank, size
        Number of this process, and how many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> World:
        """As ``torchrun`` says in the environment; alone without it."""
        size = int(os.environ.get("WORLD_SIZE", 1))
        if size == 1:
            return cls()
        import torch.distributed as dist

        if not dist.is_initialized():
            dist.init_process_group("gloo", timeout=timedelta(days=30))  # the fastest waits for the slowest
        return cls(dist.get_rank(), dist.get_world_size())

    def share(self, count: int) -> range:
        """Of ``count`` numbered batches those that this process makes."""
        return range(self.rank, count, self.size)

    def wait(self) -> None:
        """Until all processes are here, or one of them has ended."""
        if self.size > 1:
            import torch.distributed as dist

            try:
                dist.barrier()
            except RuntimeError as error:  # gloo's, that the connection is closed
                raise TrtCamError("another process of this run has ended; its own line says why") from error


def own(device: Any) -> Any:
    """The device of this process: under ``torchrun`` each on a machine has another GPU."""
    number = os.environ.get("LOCAL_RANK")
    return f"cuda:{number}" if number is not None and str(device) == "cuda" else device


class Run:
    """A folder with the batches of one run; arguments and errors as in `claim`, which process 0 does for all."""

    def __init__(self, folder: Path, identity: Mapping[str, Any], *, resume: bool, world: World) -> None:
        self.folder, self.parts, self.world = folder, folder / "parts", world
        if world.rank == 0:
            claim(folder, identity, resume=resume)
            with writing(folder):
                self.parts.mkdir(exist_ok=True)
        world.wait()

    @contextlib.contextmanager
    def begun(self) -> Iterator[None]:
        """Give the folder back where work fails before any batch is made, so that the corrected command can have it."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):
                if self.world.size == 1 and not any(self.parts.iterdir()):
                    self.parts.rmdir()
                    (self.folder / RECORD).unlink()
            raise

    def path(self, number: int) -> Path:
        """The file of a batch."""
        return self.parts / f"{number:08d}.npz"

    def missing(self, numbers: range) -> list[int]:
        """Of these batches those that are not done."""
        return [number for number in numbers if not self.path(number).exists()]

    def write(self, number: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep a batch; a run that is cut short meanwhile has none of it."""

        def write(file: IO[bytes]) -> None:
            np.savez_compressed(file, allow_pickle=False, **arrays)

        write_whole(self.path(number), write)

    def read(self, number: int) -> dict[str, NDArray[Any]]:
        """A batch that was kept."""
        return read_part(self.path(number))


def claim(folder: Path, identity: Mapping[str, Any], *, resume: bool, instead: str = "give another folder") -> None:
    """Take a folder for a run.

    Parameters
    ----------
    folder
        Made if it is not there. An existing one must be empty, or hold this very run, which is then gone on with.
    identity
        What the results depend on, as JSON holds it.
    resume
        Whether to go on with a run that is there.
    instead
        What to do if the folder holds another.

    Raises
    ------
    InputError
        The folder holds another run or other files, or this run while ``resume`` is False.
    OutputError
        It cannot be written.
    """
    record, held = folder / RECORD, json.loads(json.dumps(identity))
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if record.exists():
        check_same(record, held, instead)
        if not resume:
            raise InputError(f"{folder} holds this run already; add --resume to go on, or give another folder")
    elif others := sorted(path.name for path in folder.iterdir()):
        raise InputError(f"{folder} must be empty or hold this run, got {others[0]!r} in it; give another")
    else:
        write_whole(record, lambda file: file.write(json.dumps(held, indent=1).encode()))


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder that was claimed, so that no second run works in it meanwhile; let go however the process ends.

    Raises
    ------
    InputError
        Another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(folder / RECORD, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another process works in {folder} now; wait for it, or give another folder") from None
        except OSError:
            pass  # a file system without locks
        yield


def read_part(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a batch's file."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # the readers of damaged files raise nearly anything, and quote all of the file
        raise DatasetError(f"{path} is damaged ({str(error)[:80]!r}); delete it and go on with --resume") from None


def check_same(record: Path, identity: dict[str, Any], instead: str = "give another folder") -> None:
    """Refuse a folder that holds another run; what differs is named as finely as can be."""
    try:
        held = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{record} cannot be read ({error}); give another folder") from None
    if not isinstance(held, dict):
        raise InputError(f"{record} should be the record of a run; give another folder")
    if held != identity:
        name, *values = difference(held, identity)
        was, now = (json.dumps(value)[:80] for value in values)
        raise InputError(f"{record.parent} holds another run, whose {name} was {was}, not {now}; {instead}")


def difference(held: Any, identity: Any, name: str = "") -> tuple[str, Any, Any]:
    """The first value in nested dicts that differs, by its name such as ``settings.first.lr``, and both of it."""
    if not (isinstance(held, dict) and isinstance(identity, dict)):
        return name, held, identity
    inner = next(one for one in [*identity, *held] if held.get(one, ...) != identity.get(one, ...))
    return difference(held.get(inner), identity.get(inner), f"{name}.{inner}".strip("."))


def write_whole(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file so that it is there whole or not at all."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path):
        try:
            with open(unfinished, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        finally:
            with contextlib.suppress(OSError):
                unfinished.unlink()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """A full disk or a forbidden folder as one line."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write {path} ({error.strerror or error}); what is done is kept: make room or give another place, "
            "and go on with --resume"
        ) from error
