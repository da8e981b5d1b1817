"""Folders of ours on the Hugging Face hub: how they are named, fetched and sent, and why not, in one line."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trt_cam.errors import InputError, OutputError, TrtCamError, WeightsError

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
"""The files of a folder."""

_turn = threading.RLock()  # huggingface_hub's setting is of the whole process
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def is_hub_id(name: str) -> bool:
    """Whether a name asks for one of our folders on the hub: "hf-hub:owner/name", or "...@revision" of it."""
    return name.startswith(("hf-hub:", "hf_hub:"))


def is_repository(source: str | Path) -> bool:
    """Whether what should be a folder is a repository of the hub: by its prefix, or no folder and like owner/name."""
    name = str(source)
    return is_hub_id(name) or (not Path(name).exists() and bool(_REPOSITORY.fullmatch(name)))


def fetch(name: str, *, revision: str | None = None, token: str | None = None) -> Path:
    """Download one of our folders from the hub."""
    from huggingface_hub import snapshot_download

    repository, _, named = name.split(":", 1)[-1].partition("@")
    with from_hub(f"{CONFIG} and {WEIGHTS} of the hub repository {repository!r}"):
        files = [WEIGHTS, CONFIG, CARD]
        return Path(
            snapshot_download(repository, revision=revision or named or None, token=token, allow_patterns=files)
        )


@contextmanager
def from_hub(wanted: str) -> Iterator[None]:
    """Say in one line why ``wanted`` cannot be had; without a network at once, not after a minute of new tries."""
    with offline_unless_reached() as reachable:
        try:
            yield
        except TrtCamError:
            raise
        except Exception as error:  # huggingface_hub, its HTTP library and timm each raise their own
            why = first_line(error) if reachable else "no connection to the hub, and not fetched before"
            raise WeightsError(
                f"{wanted} were needed, but could not be fetched ({why}); "
                "check name and network, or pass a folder or a model object"
            ) from error


@contextmanager
def offline_unless_reached() -> Iterator[bool]:
    """Whether the hub answers; where it does not, what was fetched before is still found, and nothing else is tried."""
    from huggingface_hub import constants

    with _turn:
        offline, reachable = constants.HF_HUB_OFFLINE, reached()
        constants.HF_HUB_OFFLINE = offline or not reachable
        try:
            yield reachable
        finally:
            constants.HF_HUB_OFFLINE = offline


def reached() -> bool:
    """Whether the hub answers within seconds."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # whatever its HTTP library raises
        return False
    return True


class Repository:
    """A repository of the hub that is written to.

    Parameters
    ----------
    name
        "owner/name".
    token
        Of its owner; None for that of ``hf auth login`` or HF_TOKEN.
    private
        If it is made: whether others see it.
    revision
        Branch, made if missing; None for the main one.

    Raises
    ------
    InputError
        The name is none, or there is no token.
    OutputError
        The hub does not answer, or does not let the token write there.
    """

    def __init__(self, name: str, *, token: str | None, private: bool, revision: str | None) -> None:
        from huggingface_hub import HfApi, get_token

        if not isinstance(name, str) or not _REPOSITORY.fullmatch(name) or "@" in name:
            raise InputError(f"a repository 'owner/name' was needed, got {name!r}")
        if not (token or get_token()):
            raise InputError(
                f"a token that may write to {name!r} was needed, got none; pass token=..., set HF_TOKEN or run "
                "`hf auth login`"
            )
        self.name, self.revision, self.api = name, revision, HfApi(token=token)
        with self.writing():
            self.api.create_repo(name, private=private, exist_ok=True)
            if revision is not None:
                self.api.create_branch(name, branch=revision, exist_ok=True)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Say in one line why the repository cannot be written."""
        try:
            yield
        except Exception as error:  # huggingface_hub and its HTTP library raise their own
            raise OutputError(
                f"cannot write to the hub repository {self.name!r} ({first_line(error)}); check network, name and token"
            ) from error

    def card(self) -> str | None:
        """The card that is there; None if there is none."""
        with self.writing():
            if not self.api.file_exists(self.name, CARD, revision=self.revision):
                return None
            return Path(self.api.hf_hub_download(self.name, CARD, revision=self.revision)).read_text(encoding="utf-8")

    def send(self, folder: str | Path, files: list[str], message: str) -> str:
        """Write files of a folder in one commit; returns the commit's address."""
        with self.writing():
            done: Any = self.api.upload_folder(
                repo_id=self.name,
                folder_path=folder,
                revision=self.revision,
                commit_message=message,
                allow_patterns=files,
            )
        return str(getattr(done, "commit_url", done))


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 200 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
