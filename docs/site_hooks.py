"""What MkDocs is told beyond mkdocs.yml: pages that live elsewhere, links that leave the site, a menu of what exists.

The pages are written to be read in the repository too, so their links are relative to the files as they lie there.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
# Where a page of the site lies in the repository, when not under docs/.
ELSEWHERE = {"architecture.md": "ARCHITECTURE.md", "changelog.md": "CHANGELOG.md"}

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")
# A diagram that a script of another site would draw. The page has the same as a table.
DIAGRAM = re.compile(r"```mermaid\n.*?```\n", re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Leave out of the menu what does not exist, list the decisions, and put at the end what it forgot."""
    assert config.nav is not None
    kept = [entry for entry in (_existing(entry) for entry in config.nav) if entry]
    listed = set(re.findall(r"[\w/-]+\.md", str(kept)))
    forgotten = sorted({page.name for page in (ROOT / "docs").glob("*.md")} - listed)
    config.nav = kept + ([{"More": forgotten}] if forgotten else [])
    return config


def _existing(entry: Any) -> Any:
    """A menu entry with the pages that exist; None when there are none."""
    ((title, target),) = entry.items()
    if isinstance(target, list):
        kept = [inner for inner in map(_existing, target) if inner]
        return {title: kept} if kept else None
    if target == "decisions/README.md":
        records = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
        return {title: [target, *(f"decisions/{record.name}" for record in records)]}
    return entry if _source(target).exists() else None


def _source(page: str) -> Path:
    """The file that a page of the site is made of."""
    return ROOT / ELSEWHERE[page] if page in ELSEWHERE else ROOT / "docs" / page


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie at the top of the repository."""
    for page, source in ELSEWHERE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with links that lead somewhere in the site; what they lead to outside it is named, not linked."""
    home = _source(page.file.src_uri).parent

    def led(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        wanted = (home / target).resolve()
        where = _page(wanted)
        if where is None:
            return text if wanted.exists() else match[0]
        return f"[{text}]({posixpath.relpath(where, posixpath.dirname(page.file.src_uri) or '.')}{anchor})"

    return DIAGRAM.sub("", LINK.sub(led, markdown))


def _page(file: Path) -> str | None:
    """The page of the site that a file of the repository became."""
    for page, source in ELSEWHERE.items():
        if file == ROOT / source:
            return page
    docs = ROOT / "docs"
    return file.relative_to(docs).as_posix() if file.is_relative_to(docs) else None
