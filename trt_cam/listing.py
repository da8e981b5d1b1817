"""What ``trt-cam methods`` says of a method: its docstring, and every option with its default and meaning."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Sequence
from typing import Any

from trt_cam.errors import InputError
from trt_cam.explainers import BoundExplainer, Explainer, get_explainer, list_explainers

CALL_OPTIONS = ("refine", "aug_smooth", "normalize")


def summaries() -> list[str]:
    """One line for each method."""
    names = list_explainers()
    return [f"{name:{max(map(len, names))}}  {summary(get_explainer(name))}" for name in names]


def summary(kind: type[Explainer]) -> str:
    """The first sentence of a method's docstring."""
    return (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ").rstrip(":.")


def description(name: str) -> str:
    """All about one method."""
    kind = get_explainer(name)
    text = (inspect.getdoc(kind) or "").split("\n\nParameters\n")[0]
    needs = ", ".join(sorted(kind.requires))
    told = meanings(kind)
    heading = "options, as --set name=value or create_explainer(..., name=value):"
    lines = [f"{kind.name}  (needs {needs})", "", text, "", heading]
    for option, default in options(kind).items():
        lines.append(f"  {option} = {default!r}\n      {told.get(option, '')}".rstrip())
    call = doc_entries(inspect.getdoc(BoundExplainer.__call__) or "")
    lines += ["", "options of each call, explain(images, target, name=value):"]
    lines += [f"  {option}\n      {call[option]}" for option in CALL_OPTIONS]
    return "\n".join(lines)


def options(kind: type[Explainer]) -> dict[str, Any]:
    """Names of a method's settings, with their defaults."""
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    return {one.name: one.default for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD}


def meanings(kind: type[Explainer]) -> dict[str, str]:
    """What each setting means, from the docstrings of the class and of those that it extends."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        entries = doc_entries(inspect.getdoc(one) or "") if issubclass(one, Explainer) else {}
        found |= {name: text for name, text in entries.items() if name not in found or not text.startswith("As in ")}
    return found


def doc_entries(doc: str) -> dict[str, str]:
    """The entries of a docstring's Parameters section; a heading may name several."""
    if "Parameters\n" not in doc:
        return {}
    section = re.split(r"\n\n[A-Z]\w+\n-+\n", doc.split("Parameters\n", 1)[1])[0]
    found: dict[str, str] = {}
    for heading, body in re.findall(r"^(\w[^\n]*)\n((?:[ ]+[^\n]*(?:\n|$))+)", section, flags=re.MULTILINE):
        for name in heading.split(" : ")[0].split(", "):
            found[name] = " ".join(body.split())
    return found


def with_settings(method: str, given: Sequence[str]) -> Any:
    """A method with what ``--set name=value`` says of it; its name alone where nothing is said.

    Raises
    ------
    InputError
        The method has no such option, or "auto" was to be set.
    """
    if not given:
        return method
    if method == "auto":
        raise InputError("--set needs a method to set, got method auto; name one with --method")
    kind, settings = get_explainer(method), dict[str, Any]()
    for one in given:
        name, _, value = one.partition("=")
        if name not in options(kind):
            known = ", ".join(options(kind)) or "none"
            raise InputError(f"{method} has no option {name!r}; its options: {known}")
        settings[name] = literal(value)
    return kind(**settings)


def methods_with_settings(names: Sequence[str], given: Sequence[str]) -> list[Any]:
    """Methods with what ``--set method.name=value`` says of them."""
    told: dict[str, list[str]] = {name: [] for name in names}
    for one in given:
        method, _, setting = one.partition(".")
        if method not in told:
            raise InputError(f"--set needs METHOD.NAME=VALUE of one of {', '.join(names)}, got {one!r}")
        told[method].append(setting)
    return [with_settings(name, told[name]) for name in names]


def literal(text: str) -> Any:
    """A number, a list, True, None ... as Python writes them, else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
