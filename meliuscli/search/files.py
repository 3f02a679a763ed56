"""The search-space files that come with the tool, by name; without reading them as spaces."""

from __future__ import annotations

from pathlib import Path


def spaces_directory() -> Path:
    """``search_spaces/``: inside the package in a wheel, beside it in a checkout or an editable install."""
    inside = Path(__file__).parent.parent / "search_spaces"
    return inside if inside.is_dir() else Path(__file__).parent.parent.parent / "search_spaces"


def space_names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in spaces_directory().glob("*.toml")))


def space_purpose(name: str) -> str:
    """The first line of a space's file, a comment that says what it is for."""
    first = (spaces_directory() / f"{name}.toml").read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip()
