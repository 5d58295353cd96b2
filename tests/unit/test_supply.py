"""What the repository carries and what it is built on: no secrets, licences that Apache-2.0 goes with, no conflicts."""

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from detect_secrets.core.scan import scan_line
from detect_secrets.settings import transient_settings

from tests.unit.test_repository import ROOT, _files

DETECTORS = (
    *(
        "ArtifactoryDetector",
        "AWSKeyDetector",
        "AzureStorageKeyDetector",
        "CloudantDetector",
        "DiscordBotTokenDetector",
    ),
    *("GitHubTokenDetector", "GitLabTokenDetector", "IbmCloudIamDetector", "IbmCosHmacDetector", "JwtTokenDetector"),
    *("MailchimpDetector", "NpmDetector", "OpenAIDetector", "PrivateKeyDetector", "PypiTokenDetector"),
    *("SendGridDetector", "SlackDetector", "SoftlayerDetector", "SquareOAuthDetector", "StripeDetector"),
    *("TelegramBotTokenDetector", "TwilioKeyDetector"),
)
"""Those that know the shape of a secret. Entropy and words such as `password` find our ids and our documentation."""

PLANTED = {
    "AWS": "AKIA" + "IOSFODNN7EXAMPLQ",
    "GitHub": "ghp_" + "a1B2" * 9,
    "private key": "-----BEGIN RSA PRIVATE " + "KEY-----",
    "Slack": "xoxb-" + "123456789012-123456789012-" + "abcdefghijklmnopqrstuvwx",
}
ALLOWED = re.compile(
    r"MIT|BSD|Apache|Python Software Foundation|PSF|ISC|0BSD|CC0|Zlib|Unlicense|CNRI|Redistribution and use|DFSG", re.I
)
WEAK_COPYLEFT = {"certifi", "tqdm", "orjson", "pathspec", "hypothesis"}
"""Mozilla's licence, unchanged and not part of our wheel: what uses them is free to have any other."""


def _secrets(lines: list[str]) -> list[str]:
    return [found.type for line in lines for found in scan_line(line)]


def _pinned(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", (ROOT / name).read_text(), re.M))


@pytest.fixture(autouse=True)
def _detectors() -> Iterator[None]:
    with transient_settings({"plugins_used": [{"name": name} for name in DETECTORS]}) as settings:
        settings.disable_filters("detect_secrets.filters.heuristic.is_sequential_string")
        yield


@pytest.mark.parametrize("planted", PLANTED)
def test_a_secret_that_is_planted_is_found(planted: str) -> None:
    assert _secrets([f'token = "{PLANTED[planted]}"'])


def test_no_file_has_a_secret() -> None:
    found = {}
    for path in _files():
        if path.suffix not in {".png", ".onnx"} and (types := _secrets(_suspects(path))):
            found[path.relative_to(ROOT).as_posix()] = types
    assert found == {}


def _suspects(path: Path) -> list[str]:
    """Lines with a word of sixteen characters: nothing shorter is a secret, and each line costs time."""
    return [line for line in path.read_text(errors="replace").splitlines() if re.search(r"[\w+/=-]{16}|KEY-----", line)]


@pytest.mark.parametrize("requirements", ["requirements.txt", "requirements-dev.txt"])
def test_every_licence_goes_with_apache_2(requirements: str) -> None:
    others = {}
    for name in _pinned(requirements):
        try:
            licence = _licence(name)
        except PackageNotFoundError:
            continue  # of another platform
        weak = "Mozilla" in licence or "MPL" in licence
        if "GPL" in licence or not (name in WEAK_COPYLEFT if weak else ALLOWED.search(licence)):
            others[name] = licence
    assert others == {}


def _licence(name: str) -> str:
    told = distribution(name).metadata
    classifiers = [each for each in told.get_all("Classifier") or [] if each.startswith("License ::")]
    named = [*(told.get_all("License-Expression") or []), *classifiers, *(told.get_all("License") or [])]
    return " ".join(each[:200] for each in named)


def test_packages_that_are_installed_do_not_contradict_one_another() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "check", "--disable-pip-version-check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
