"""What others say files of their kind have to look like, from packages that carry it along and are not installed."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator
from referencing import Registry, Resource

from tests.conftest import missing

COMPOSE = "check-jsonschema==0.39.0"
KUBERNETES = "kubernetes-validate==1.37.0"
KUBERNETES_VERSION = "1.34"
"""The oldest one that still gets fixes; newer ones take what it takes."""


def fetched(folder: Path, *requirements: str) -> None:
    """Put the wheels of these packages into a folder: thousands of files, of which few are wanted, stay packed."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), *requirements]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        missing("registry", f"pip cannot fetch {', '.join(requirements)}: {finished.stderr[-300:]}")


class Schemas:
    """The schemas in fetched wheels."""

    def __init__(self, folder: Path) -> None:
        self._wheels = {wheel.name.partition("-")[0]: zipfile.ZipFile(wheel) for wheel in folder.glob("*.whl")}
        self._definitions: Any = None

    def close(self) -> None:
        for wheel in self._wheels.values():
            wheel.close()

    def of_compose(self) -> Validator:
        """What the Compose Specification wants."""
        return Draft202012Validator(self._read("check_jsonschema", "builtin_schemas/vendor/compose-spec.json"))

    def of_kubernetes(self, manifest: dict[str, Any]) -> Validator:
        """What Kubernetes wants of objects of this kind, and that nothing else is there."""
        folder = f"kubernetes-json-schema/v{KUBERNETES_VERSION}.0-local-strict"
        if self._definitions is None:
            self._definitions = Resource.from_contents(self._read("kubernetes_validate", f"{folder}/_definitions.json"))
        group, _, version = manifest["apiVersion"].rpartition("/")
        version = f"{group.partition('.')[0]}-{version}" if group else version
        schema = self._read("kubernetes_validate", f"{folder}/{manifest['kind'].lower()}-{version}.json")
        registry = self._definitions @ (Resource.from_contents(schema) @ Registry())
        return Draft202012Validator(schema, registry=registry)

    def _read(self, package: str, path: str) -> Any:
        with self._wheels[package].open(f"{package}/{path}") as file:
            return json.load(file)
