"""What networks share with huggingface_hub's users: save_pretrained, from_pretrained, push_to_hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from torch import nn

from trt_cam.errors import WeightsError
from trt_cam.models.cards import untouched
from trt_cam.models.hub import CARD, CONFIG, WEIGHTS, Repository
from trt_cam.models.weights import from_pretrained, save_pretrained


class Shareable:
    """A network that is a folder, here or on the hub."""

    def save_pretrained(self, folder: str | Path, **settings: Any) -> None:
        """Write model.safetensors, config.json and a card; settings as ``trt_cam.models.weights.save_pretrained``."""
        assert isinstance(self, nn.Module)
        save_pretrained(self, folder, **settings)

    def push_to_hub(self, repo_id: str, **settings: Any) -> str:
        """The same on the hub; settings as ``trt_cam.models.sharing.push_to_hub``."""
        assert isinstance(self, nn.Module)
        return push_to_hub(self, repo_id, **settings)

    @classmethod
    def from_pretrained(cls, source: str | Path, *, revision: str | None = None, token: str | None = None) -> Self:
        """Load such a folder, or a repository of the hub of that layout, in eval mode.

        Parameters
        ----------
        source
            A folder, "owner/name" or "hf-hub:owner/name".
        revision, token
            Of the hub: branch, tag or commit; for what is not public.
        """
        net = from_pretrained(source, revision=revision, token=token)
        if not isinstance(net, cls):
            raise WeightsError(
                f"a {cls.__name__} was needed in {source}, got a {type(net).__name__}; "
                "use trt_cam.models.weights.load_model"
            )
        return net


def push_to_hub(
    net: nn.Module,
    repo_id: str,
    *,
    token: str | None = None,
    private: bool = False,
    revision: str | None = None,
    commit_message: str = "A network of trt_cam",
    card: Mapping[str, Any] | None = None,
    half: bool = False,
    new_card: bool = False,
) -> str:
    """Write a network to the Hugging Face hub, in one commit.

    Parameters
    ----------
    net, card, half, new_card
        As for ``save_pretrained``; a card on the hub that somebody wrote or changed stays.
    repo_id
        "owner/name"; made if missing.
    token
        None for that of ``hf auth login`` or HF_TOKEN.
    private
        If the repository is made: whether others see it.
    revision
        Branch, made if missing.
    commit_message
        Of the commit.

    Returns
    -------
    str
        The commit's address.

    Raises
    ------
    InputError
        The name is none, there is no token, or the network cannot be built again.
    OutputError
        The hub does not answer, or does not let the token write there.
    """
    with TemporaryDirectory() as made:
        save_pretrained(net, made, card=card, half=half)  # before anything is made on the hub
        hub = Repository(repo_id, token=token, private=private, revision=revision)
        there = None if new_card else hub.card()
        kept = there is not None and not untouched(there)
        return hub.send(made, [WEIGHTS, CONFIG] if kept else [WEIGHTS, CONFIG, CARD], commit_message)
