"""A hook of mkdocs: the README as the first page, and every file of the repository that a page links to as a page.

Pages link to one another and to files as they lie in the repository, so that they also read well there.  On the site a
file of docs/ stands at the top and any other at its own path: text as it is written, a folder as a list or its README.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<=\]\()([^)#:\s]+)(?=(?:#[^)\s]*)?\))")
ALONE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")  # pages outside docs/ that have a place of their own
PICTURES = (".svg", ".png")
MOST = 200_000  # bytes of a file that is shown as a page; a longer one is there to be taken


def on_files(files: Files, config: Any) -> Files:
    """Add what is linked to, what that links to, and so on."""
    waiting = [*ALONE, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        if not path.startswith("docs/"):
            files.append(_file(path, config))
        for _, target in _links(path, _text(path)):
            if target not in seen and not target.startswith("docs/"):
                seen.add(target)
                waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Let links lead to where things are on the site."""
    path = next((p for p in ALONE if _at(p) == page.file.src_uri), None) or _repository(page.file)
    here = posixpath.dirname(page.file.src_uri)
    found = {link: posixpath.relpath(_at(target), here or ".") for link, target in _links(path, markdown)}
    return LINK.sub(lambda match: found.get(match[1], match[1]), markdown)


def _file(path: str, config: Any) -> File:
    where = InclusionLevel.INCLUDED if path in ALONE else InclusionLevel.NOT_IN_NAV
    if _at(path).endswith(".md"):
        return File.generated(config, _at(path), content=_text(path), inclusion=where)
    return File.generated(config, _at(path), abs_src_path=str(ROOT / path), inclusion=where)


def _text(path: str) -> str:
    """What a page says: Markdown as it is, other text as code, a folder as the list of its files."""
    file = ROOT / path
    if file.is_dir():
        names = sorted(f.name for f in file.iterdir() if f.is_file() and not f.name.startswith("__"))
        return "\n".join([f"# {path}", "", *(f"- [{name}]({name})" for name in names), ""])
    if not _at(path).endswith(".md"):
        return ""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        return text
    language = {".yaml": "yaml", ".py": "python", ".toml": "toml", ".json": "json"}.get(file.suffix, "text")
    return f"---\nsearch: {{exclude: true}}\n---\n\n# {path}\n\n~~~~~~{language}\n{text}~~~~~~\n"


def _links(path: str, text: str) -> list[tuple[str, str]]:
    """Each link of a page, and the path in the repository that it leads to; only where there is something."""
    folder = path if (ROOT / path).is_dir() else posixpath.dirname(path)
    if not path.endswith(".md") and folder != path:
        return []
    found = []
    for link in dict.fromkeys(LINK.findall(text)):
        target = posixpath.normpath(posixpath.join(folder, link))
        if (ROOT / target / "README.md").exists():
            target = f"{target}/README.md"
        if (ROOT / target).exists():
            found.append((link, target))
    return found


def _at(path: str) -> str:
    """Where a path of the repository is on the site."""
    file = ROOT / path
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if file.is_dir():
        return f"{path}/index.md"
    if file.suffix == ".md" or file.suffix in PICTURES or file.stat().st_size > MOST:
        return path
    return f"{path}.md"


def _repository(file: File) -> str:
    """The path in the repository of a page of the site."""
    uri = str(file.src_uri)
    if (ROOT / "docs" / uri).exists():
        return f"docs/{uri}"
    if uri.endswith("/index.md") and (ROOT / posixpath.dirname(uri)).is_dir():
        return posixpath.dirname(uri)
    return uri if (ROOT / uri).exists() else uri.removesuffix(".md")
