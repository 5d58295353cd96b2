"""What the documents say beside code: links lead somewhere, names stand for what is there, drawn parts are current."""

import re
import shlex
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import adlatus
from adlatus.settings import Settings
from docs import generate
from tests.docs.documents import ROOT, Document, documents
from tests.docs.shell import SETTINGS, TARGETS, TESTING, check_named_adlatus

DOCUMENTS = {document.name: document for document in documents()}
ANCHORS = {name: document.anchors() for name, document in DOCUMENTS.items()}
MODULES = {path.name.removesuffix(".py") for path in (ROOT / "src" / "adlatus").iterdir()}

each_document = pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)


@each_document
def test_links_lead_to_files_and_headings_that_are_there(document: Document) -> None:
    for link in document.links():
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme in ("http", "https"), link
            continue
        target = (document.path.parent / parts.path).resolve() if parts.path else document.path
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        if parts.fragment:
            assert parts.fragment in ANCHORS[target.relative_to(ROOT).as_posix()], link


@each_document
def test_settings_that_are_named_are_settings(document: Document) -> None:
    for name in re.findall(r"\bADLATUS_[A-Z0-9_]*[A-Z0-9]\b", document.text):
        assert name in SETTINGS or name in TESTING, name


@each_document
def test_metrics_that_are_named_are_in_their_table(document: Document) -> None:
    table = set(re.findall(r"^\| `(adlatus_\w+)", DOCUMENTS["docs/observing.md"].text, re.M))
    for name in re.findall(r"\badlatus_[a-z_]+[a-z]\b", document.text):
        assert re.sub("_(bucket|count|sum)$", "", name) in table, name


@each_document
def test_commands_that_are_named_in_sentences_are_there(document: Document) -> None:
    for name in document.names():
        words = name.replace("`", "").split()
        if words[:1] == ["make"] and len(words) > 1 and words[1].isalpha():
            assert words[1] in TARGETS, name
        if words[:1] == ["adlatus"] and "|" not in name and "…" not in name:
            check_named_adlatus(shlex.split(name)[1:])


@each_document
def test_files_that_are_named_are_there(document: Document) -> None:
    for name in document.names():
        path, _, test = name.partition("::")
        first, _, rest = path.partition("/")
        if not re.fullmatch(r"[\w./-]+", path) or not rest:
            continue
        if first in ("src", "tests", "docs", "examples", "bench", "docker", "deploy", "migrations"):
            assert (ROOT / path).exists(), name
        elif first in MODULES and path.endswith(".py"):
            assert (ROOT / "src" / "adlatus" / path).exists(), name
        if test:
            assert re.search(rf"^(async )?def {test}\(", (ROOT / path).read_text("utf-8"), re.M), name


def test_the_index_lists_every_document() -> None:
    listed = {link.partition("#")[0] for link in DOCUMENTS["docs/README.md"].links()}
    beside = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert beside <= listed


def test_the_table_of_the_examples_lists_every_example() -> None:
    listed = {link.partition("#")[0].partition("/")[0] for link in DOCUMENTS["examples/README.md"].links()}
    ignored = {"README.md", "node_modules", "package.json", "package-lock.json", "__pycache__", ".ipynb_checkpoints"}
    assert {path.name for path in (ROOT / "examples").iterdir()} - ignored <= listed


def test_what_is_drawn_from_the_code_is_current() -> None:
    assert [path.name for path, _ in generate.outdated()] == [], "run `make docs`"


def test_the_changelog_has_this_version() -> None:
    assert f"\n## [{adlatus.__version__}] - 20" in DOCUMENTS["CHANGELOG.md"].text


def test_figures_that_are_quoted_are_those_that_were_measured() -> None:
    rows = re.findall(r"^\| (.+?) \| (\d[\d,.]*) (.+) \| (\S+) \|$", DOCUMENTS["docs/operations.md"].text, re.M)
    assert len(rows) > 10
    for what, figure, _, where in rows:
        if link := re.search(r"\((\S+\.md)#", where):
            assert figure in DOCUMENTS[f"docs/{link[1]}"].text, what
        elif where.startswith("P"):
            measured = re.findall(rf"^\| {where} \| .+", DOCUMENTS["docs/performance.md"].text, re.M)
            assert any(f"| {figure} " in row for row in measured), what


def test_the_diagram_of_the_modules_shows_every_one_and_only_ways_down() -> None:
    arrows = re.findall(r"^    (\w+) --> (\w+)$", generate.architecture(), re.M)
    private = {"_sandbox", "__init__", "__pycache__", "py.typed", "_migrations"}
    assert {module for arrow in arrows for module in arrow} == MODULES - private
    layers = [layer.split(" | ") for layer in generate.layers().split(" → ")]
    height = {module: number for number, layer in enumerate(layers) for module in layer}
    assert all(height[upper] < height[lower] for upper, lower in arrows)


def test_the_map_of_the_package_names_every_module() -> None:
    named = set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^- .*", adlatus.__doc__ or "", re.M))))
    private = {"_sandbox", "__init__", "__pycache__", "py.typed", "_migrations", "cli"}
    assert MODULES - private <= named


def test_the_examples_of_settings_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    for group in generate.GROUPS.values():
        for name, example in group.items():
            monkeypatch.setenv(generate.variable(name), example)
    settings = Settings()
    assert settings.model_fields_set == set(Settings.model_fields)


def test_a_document_without_its_mark_is_told(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="<!-- settings -->"):
        generate.drawn("No marks here.", {"settings": generate.settings})
