"""Sources described for people: the text of `cae data list`, and the table in data/README.md."""

from __future__ import annotations

from collections.abc import Iterable

from cae_lib.data.disk import format_size
from cae_lib.data.sources import Item, Source


def describe(source: Source) -> list[str]:
    """A few lines: name, what it is, size, licence, place, how it is got."""
    lines = [f"{source.name}: {source.title}", f"  {_size(source)}, {source.licence}"]
    lines.append(f"  goes to {place(source)}; {ways(source)}")
    if source.gated:
        lines.append(f"  accept the terms first: {source.gated}")
    if source.needs:
        lines.append(f"  shows pictures of {', '.join(source.needs)}")
    return lines


def place(source: Source) -> str:
    """Folder of a source, as a reader knows it."""
    only_cache = all(item.open_clip for item in source.get)
    return "open_clip's cache" if only_cache else f"data/raw/{source.folder}"


def ways(source: Source) -> str:
    """How its files are got, for example "2 files of plain addresses, 1 by hand"."""
    names = {
        "by hand": [i for i in source.get if i.how],
        "from Google Drive": [i for i in source.get if i.drive],
        "from the Hugging Face hub": [i for i in source.get if i.hub],
        "by open_clip": [i for i in source.get if i.open_clip],
        "from the web": [i for i in source.get if i.url],
    }
    found = [f"{_number(items)} {way}" for way, items in names.items() if items]
    return ", ".join(found)


def table(sources: Iterable[Source]) -> str:
    """A Markdown table of all sources: name, what it is, licence, size, place, how it is got."""
    rows = [
        f"| `{s.name}` | [{s.title}]({s.home}) | {s.licence} | {_size(s)} | `{place(s)}` "
        f"| {ways(s)}{' (terms)' if s.gated else ''} |"
        for s in sources
    ]
    head = "| name | what | licence | download | place | how |\n|---|---|---|---|---|---|"
    return "\n".join([head, *rows])


def _size(source: Source) -> str:
    return "size not known" if source.gb is None else f"about {format_size(source.gb * 1e9)}"


def _number(items: list[Item]) -> str:
    return f"{len(items)} file{'s' if len(items) > 1 else ''}"
