"""Draws from the code what the documentation says of it, and writes it between its marks: `make docs`.

A mark is a pair of comments, `<!-- settings -->` and `<!-- /settings -->`, around what is replaced. Tests compare.
"""

import re
import tomllib
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal, Union, get_args, get_origin

import grimp
from pydantic import SecretStr
from pydantic.fields import FieldInfo

import adlatus
from adlatus.runs.lifecycle import diagram
from adlatus.settings import Settings

ROOT: Final = Path(__file__).parents[1]

GROUPS: Final[dict[str, dict[str, str]]] = {
    "Serving": {
        "host": "0.0.0.0",
        "port": "9000",
        "data_dir": "/srv/adlatus",
        "api_keys": "sk-one,sk-two:team-blue",
        "cors_origins": "https://chat.example.org",
        "admin_bind": "0.0.0.0:9090",
        "max_connections": "1000",
        "log_format": "json",
        "log_level": "warning",
    },
    "Database and storage": {
        "database_url": "postgresql://adlatus:secret@db.example.org/adlatus",
        "storage_url": "s3://adlatus-files/production",
        "storage_quota_gb": "20",
    },
    "Models": {
        "model_base_url": "http://localhost:11434/v1",
        "model_api_key": "sk-…",
        "model": "qwen3:32b",
        "models_file": "models.toml",
        "model_timeout_s": "300",
        "image_urls": "inline",
        "rehearsal_script": "script.yaml",
    },
    "Runs": {
        "run_concurrency": "50",
        "project_run_concurrency": "20",
        "run_expires_after_s": "3600",
    },
    "Code interpreter": {
        "sandbox": "docker",
        "sandbox_image": "registry.example.org/adlatus-sandbox:7",
        "sandbox_runtime": "runsc",
        "code_timeout_s": "300",
    },
    "File search": {
        "ingestion_concurrency": "4",
        "embedding_base_url": "http://localhost:11434/v1",
        "embedding_api_key": "sk-…",
        "embedding_model": "nomic-embed-text",
        "embedding_dimensions": "512",
        "embedding_max_tokens": "512",
        "qdrant_url": "http://qdrant.example.org:6333",
        "qdrant_api_key": "secret",
        "rerank_url": "http://localhost:8080/rerank",
        "rerank_api_key": "secret",
        "rerank_model": "bge-reranker-v2-m3",
        "rewrite_model": "gpt-4o-mini",
    },
}
"""Every setting, with an example of a value, in the order in which the documentation shows them."""

_UNITS: Final = {"_s": "seconds", "_gb": "gigabytes", "_tokens": "tokens", "_bytes": "bytes"}

_OUTSIDE: Final = {
    "asyncpg": "PostgreSQL",
    "qdrant_client": "Qdrant",
    "obstore": "files: folder, S3, GCS, Azure",
    "docker": "Docker engine",
    "aiohttp": "models, embeddings",
}
"""What is reached by these packages."""


# --- Settings


def variable(name: str) -> str:
    return f"ADLATUS_{name.upper()}"


def meanings() -> str:
    """The table of the README: every setting in a line."""
    rows = [f"| `{variable(name)}` | {field.description} |" for name, field in Settings.model_fields.items()]
    return "\n".join(["| Variable | Meaning |", "|---|---|", *rows])


def settings() -> str:
    """The settings by group: default, values, an example, meaning. Documents are linked."""
    listed = [name for group in GROUPS.values() for name in group]
    if strange := set(listed) ^ set(Settings.model_fields):
        raise SystemExit(f"docs/generate.py: GROUPS and settings.py differ in {', '.join(sorted(strange))}")
    return "\n\n".join(_group(title, examples) for title, examples in GROUPS.items())


def _group(title: str, examples: dict[str, str]) -> str:
    rows = [f"## {title}", "", "| Variable | Default | Values | Example | Meaning |", "|---|---|---|---|---|"]
    for name, example in examples.items():
        field = Settings.model_fields[name]
        meaning = re.sub(r"`?\b(?:docs/)(\w[\w-]*\.md)`?", r"[\1](\1)", field.description or "")
        meaning = meaning.replace("SECURITY.md", "[SECURITY.md](../SECURITY.md)")
        cells = (f"`{variable(name)}`", _default(name, field), _values(name, field), f"`{example}`", meaning)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _default(name: str, field: FieldInfo) -> str:
    if name == "data_dir":  # it differs from machine to machine
        return "`/var/lib/adlatus`, `~/.local/share/adlatus`"
    return "unset" if field.default is None else f"`{field.default}`"


def _values(name: str, field: FieldInfo) -> str:
    """What may be given: one of several words, or a kind of value with its unit and limits."""
    kind = field.annotation
    if get_origin(kind) in (Union, types.UnionType):
        [kind] = [each for each in get_args(kind) if each is not type(None)]
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    words = {int: "whole number", float: "number", bool: "`true`, `false`", Path: "path", SecretStr: "secret"}
    said = [words.get(kind, "text") if isinstance(kind, type) else "text"]
    said += [unit for suffix, unit in _UNITS.items() if name.endswith(suffix)]
    said += [_limit(limit) for limit in field.metadata if _limit(limit)]
    return ", ".join(said)


def _limit(limit: object) -> str:
    signs = {"gt": "over", "ge": "from", "lt": "under", "le": "to"}
    return " ".join(f"{word} {getattr(limit, sign)}" for sign, word in signs.items() if hasattr(limit, sign))


# --- Architecture


def architecture() -> str:
    """The modules of the package and what they import, as a Mermaid diagram.

    An arrow that can be walked in several steps is left out: whoever is above may use all that is below.
    """
    graph = grimp.build_graph("adlatus", include_external_packages=True, cache_dir=None)
    uses: dict[str, set[str]] = {}
    outside: set[tuple[str, str]] = set()
    for importer in graph.modules:
        module = _module(importer)
        for imported in graph.find_modules_directly_imported_by(importer) if module else ():
            target = _module(imported)
            if target and target != module:
                uses.setdefault(module, set()).add(target)
            elif imported in _OUTSIDE and module in ("backends", "store"):
                outside.add((module, imported))
    arrows = {(upper, lower) for upper, below in uses.items() for lower in below}
    drawn = sorted(arrow for arrow in arrows if not _in_steps(*arrow, uses))
    lines = ["```mermaid", "flowchart TD", *(f"    {upper} --> {lower}" for upper, lower in drawn)]
    lines += [f'    {module} -.-> {package}[("{_OUTSIDE[package]}")]' for module, package in sorted(outside)]
    return "\n".join([*lines, "```"])


def _module(name: str) -> str:
    """`runs` of `adlatus.runs.loop`; nothing for packages of others and for the package itself."""
    first, _, rest = name.partition(".")
    return rest.partition(".")[0] if first == "adlatus" else ""


def _in_steps(upper: str, lower: str, uses: dict[str, set[str]]) -> bool:
    """Whether a way leads from one to the other over a third."""
    reached, frontier = set[str](), uses[upper] - {lower}
    while frontier:
        reached |= frontier
        frontier = {each for middle in frontier for each in uses.get(middle, ())} - reached
    return lower in reached


def packages() -> str:
    """The map of the package, from its docstring, as a table."""
    rows = re.findall(r"^- `([^\n]+?)`(?!,)\s+(.+?)(?=\n- |\Z)", (adlatus.__doc__ or "").strip(), re.M | re.S)
    said = [f"| `{name}` | {' '.join(what.split())} |" for name, what in rows]
    return "\n".join(["| Module | What it owns |", "|---|---|", *said])


def layers() -> str:
    """The layers that import-linter checks, from above to below."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    return " → ".join(layer.replace("adlatus.", "") for layer in contracts[0]["layers"])


def lifecycle() -> str:
    return f"```mermaid\n{diagram()}```"


# --- Writing

PARTS: Final[dict[str, dict[str, Callable[[], str]]]] = {
    "README.md": {"settings": meanings},
    "docs/settings.md": {"settings": settings},
    "docs/architecture.md": {"modules": architecture, "packages": packages, "lifecycle": lifecycle},
    "docs/compatibility.md": {"lifecycle": lifecycle},
}


def drawn(text: str, parts: dict[str, Callable[[], str]]) -> str:
    """A document with its marked parts drawn anew."""
    for name, draw in parts.items():
        place = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", re.S)
        if len(place.findall(text)) != 1:
            raise SystemExit(f"the mark <!-- {name} --> is not there once")
        part = draw()
        text = place.sub(lambda _, part=part: f"{part}\n", text)  # type: ignore[misc]
    return text


def outdated() -> Iterator[tuple[Path, str]]:
    """The documents that would change, with what they should be."""
    for name, parts in PARTS.items():
        path = ROOT / name
        text = path.read_text("utf-8")
        if (new := drawn(text, parts)) != text:
            yield path, new


def main() -> None:
    for path, text in outdated():
        path.write_text(text, "utf-8")
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
