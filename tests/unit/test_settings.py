"""Settings, and what the README says of them."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from adlatus.settings import Settings, default_data_dir, is_loopback

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        monkeypatch.delenv(f"ADLATUS_{field.upper()}", raising=False)


def test_everything_has_a_default() -> None:
    settings = Settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.keys == ()
    assert settings.data_dir == default_data_dir()


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADLATUS_PORT", "9000")
    monkeypatch.setenv("ADLATUS_MODEL", "qwen3:32b")
    monkeypatch.setenv("ADLATUS_MODEL_API_KEY", "")
    settings = Settings()
    assert (settings.port, settings.model, settings.model_api_key) == (9000, "qwen3:32b", None)


def test_keys_belong_to_projects() -> None:
    keys = Settings(api_keys=" sk-a , sk-b:blue,").keys
    assert [(key.secret.get_secret_value(), key.project_id) for key in keys] == [("sk-a", "default"), ("sk-b", "blue")]


@pytest.mark.parametrize("malformed", [":blue", "sk-a:", "sk-a,:"])
def test_malformed_keys_are_refused_without_being_shown(malformed: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(api_keys=malformed)
    assert "ADLATUS_API_KEYS" in refused.value.errors()[0]["msg"]


def test_no_secret_is_in_the_representation() -> None:
    settings = Settings(api_keys="sk-secret", model_api_key="sk-secret", database_url="postgresql://u:sk-secret@h/d")
    assert "sk-secret" not in repr(settings)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "LOCALHOST", "app.localhost", "::1", "[::1]"])
def test_loopback_names_are_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "::", "10.0.0.1", "localhost.evil.example", "127.0.0.1.nip.io", "2130706433"]
)
def test_other_names_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_the_readme_lists_every_setting_and_no_other() -> None:
    rows = dict(re.findall(r"^\| `(ADLATUS_[A-Z_]+)` \| (.+) \|$", README.read_text(), re.M))
    wanted = {f"ADLATUS_{name.upper()}": field.description for name, field in Settings.model_fields.items()}
    assert rows == wanted
