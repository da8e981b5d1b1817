"""Check the built site: `python docs/check_links.py docs/_build/html [--external]`.

Every link inside it leads to a file and a place that exist, nothing that a page loads lies elsewhere, and links to
other sites are https. Those are not opened: `--external` lists them.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {
    "img": "src",
    "script": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "link": "href",
    "use": "href",
}
REMOTE_STYLE = re.compile(r"""(?:@import\s*|url\()\s*(?:url\()?["']?((?:https?:)?//[^"')\s]+)""")


class Page(HTMLParser):
    """What one page loads, where it links to, and the places in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """One element."""
        given = {name: value or "" for name, value in attrs}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        if LOADED.get(tag) in given:
            self.loads.append(given[LOADED[tag]])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])


def is_remote(link: str) -> bool:
    """Whether a link leads to another host."""
    return link.startswith("//") or urlsplit(link).scheme in ("http", "https")


def well_formed(link: str) -> bool:
    """Whether a link to another site is one of https to a host with a name."""
    parts = urlsplit(link)
    return parts.scheme == "https" and bool(re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc))


def problems(root: Path, external: set[str]) -> Iterator[str]:
    """A line for each thing wrong in a folder of pages; links to other sites are added to ``external``."""
    pages = {file.resolve(): Page(file.read_text(encoding="utf-8")) for file in sorted(root.rglob("*.html"))}
    if not pages:
        yield f"{root}: no page; build the site with `make docs`"
    for file, page in pages.items():
        where = file.relative_to(root.resolve())
        yield from (f"{where}: loads {link} from elsewhere" for link in page.loads if is_remote(link))
        for link in dict.fromkeys(page.loads + page.links):
            if is_remote(link):
                external.add(link)
                if not well_formed(link):
                    yield f"{where}: {link} is not https://host/..."
            elif link.partition(":")[0] not in ("mailto", "data") and (why := broken(file, link, pages)):
                yield f"{where}: {link} {why}"
    for style in sorted(root.rglob("*.css")):
        for link in REMOTE_STYLE.findall(style.read_text(encoding="utf-8")):
            yield f"{style.relative_to(root)}: loads {link} from elsewhere"


def broken(file: Path, link: str, pages: dict[Path, Page]) -> str:
    """What is wrong with a link inside the site, or nothing."""
    path, _, place = link.partition("#")
    target = (file.parent / unquote(path.partition("?")[0])).resolve() if path else file
    if not target.is_file():
        return "leads to no file"
    if place and target in pages and unquote(place) not in pages[target].places:
        return "leads to no place in that page"
    return ""


def main() -> int:
    """Print what is wrong; exit code 1 if anything is."""
    parser = argparse.ArgumentParser(description="Check the links of the built site.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--external", action="store_true", help="list the links to other sites")
    chosen = parser.parse_args()
    external: set[str] = set()
    found = list(problems(chosen.folder, external))
    if chosen.external:
        print("\n".join(sorted(external)))
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
