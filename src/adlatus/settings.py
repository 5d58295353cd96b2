"""All settings, read once from the environment into one frozen object that is passed down."""

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

DEFAULT_PROJECT = "default"


@dataclass(frozen=True)
class ApiKey:
    """One bearer key of `ADLATUS_API_KEYS` and the project that it opens."""

    secret: SecretStr
    project_id: str


def default_data_dir() -> Path:
    """`/var/lib/adlatus` for root, else `$XDG_DATA_HOME/adlatus` or `~/.local/share/adlatus`."""
    if os.geteuid() == 0:
        return Path("/var/lib/adlatus")
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".local" / "share") / "adlatus"


class Settings(BaseSettings):
    """Every field is the environment variable `ADLATUS_<FIELD>`; all are optional.

    Raises `pydantic.ValidationError` where a value is malformed.
    """

    model_config = SettingsConfigDict(env_prefix="ADLATUS_", frozen=True, extra="ignore", env_ignore_empty=True)

    host: Annotated[str, Field(description="Address to listen on; anything but loopback needs API keys")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on; 0 takes a free one")] = 8000
    data_dir: Annotated[
        Path,
        Field(
            default_factory=default_data_dir,
            description="Folder of everything that is kept on this machine; `/var/lib/adlatus` for root, else by XDG",
        ),
    ]
    database_url: Annotated[
        SecretStr | None,
        Field(description="`postgresql://user:password@host/db` of an own PostgreSQL; unset: the embedded one"),
    ] = None
    storage_url: Annotated[
        str | None,
        Field(
            description="Where the bytes of files are: `s3://bucket/prefix`, `gs://…`, `az://…`, `file:///folder`; "
            "unset: the folder `storage` of the data folder (docs/files.md)"
        ),
    ] = None
    storage_quota_gb: Annotated[
        float | None,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="Gigabytes of files that a project may keep that has no limit of its own (docs/projects.md); "
            "unset: no limit",
        ),
    ] = None
    model_base_url: Annotated[
        str | None,
        Field(description="OpenAI-compatible endpoint such as `http://localhost:11434/v1`; unset: the rehearsal model"),
    ] = None
    model_api_key: Annotated[SecretStr | None, Field(description="Key for the model endpoint")] = None
    model: Annotated[
        str | None,
        Field(description="Upstream model that every model name goes to that is not routed; unset: names pass through"),
    ] = None
    models_file: Annotated[
        Path | None,
        Field(description="TOML file that routes model names to endpoints; see `docs/models.md`"),
    ] = None
    model_timeout_s: Annotated[
        float,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="Longest silence of a model endpoint, in seconds, before and between tokens",
        ),
    ] = 120
    embedding_base_url: Annotated[
        str | None,
        Field(description="OpenAI-compatible endpoint for embeddings; unset: the local model (docs/retrieval.md)"),
    ] = None
    embedding_api_key: Annotated[SecretStr | None, Field(description="Key for the embedding endpoint")] = None
    embedding_model: Annotated[
        str | None,
        Field(description="Embedding model that files are indexed with; needed for an endpoint of one's own"),
    ] = None
    embedding_dimensions: Annotated[
        int | None,
        Field(ge=1, le=65_536, description="Length of vectors to ask the endpoint for; unset: the model's own"),
    ] = None
    embedding_max_tokens: Annotated[
        int,
        Field(ge=16, description="Tokens that the endpoint's model reads at once; longer texts are embedded in parts"),
    ] = 8191
    qdrant_url: Annotated[
        str | None,
        Field(
            description="Qdrant server or cluster that the index of files is in, such as `http://localhost:6333`; "
            "unset: an embedded one in the data folder (docs/retrieval.md)"
        ),
    ] = None
    qdrant_api_key: Annotated[SecretStr | None, Field(description="Key for the Qdrant server")] = None
    rerank_url: Annotated[
        str | None,
        Field(
            description="Address of a reranker with its whole path, such as `http://localhost:8080/rerank`; "
            "unset: none (docs/retrieval.md)"
        ),
    ] = None
    rerank_api_key: Annotated[SecretStr | None, Field(description="Key for the reranker")] = None
    rerank_model: Annotated[
        str | None, Field(description="Model to ask the reranker for; unset: the one that it serves")
    ] = None
    rewrite_model: Annotated[
        str | None,
        Field(description="Model that rewrites the queries of searches with `rewrite_query`; unset: ADLATUS_MODEL"),
    ] = None
    image_urls: Annotated[
        Literal["auto", "forward", "inline", "refuse"],
        Field(
            description="Who fetches images that messages link to: the model endpoint (`forward`), this server, from "
            "public addresses only (`inline`), nobody (`refuse`); `auto` is `forward` for OpenAI, else `inline`"
        ),
    ] = "auto"
    rehearsal_script: Annotated[
        Path | None,
        Field(description="YAML file of expectations and answers that the rehearsal model plays (docs/rehearsal.md)"),
    ] = None
    sandbox: Annotated[
        Literal["auto", "docker", "bubblewrap", "off"],
        Field(
            description="What model-written code runs in; `auto` is Docker if an engine answers and has the image, "
            "else bubblewrap, and `docker` never falls back to it"
        ),
    ] = "auto"
    sandbox_image: Annotated[
        str | None,
        Field(description="Image of Docker's sandboxes; unset: the one that `adlatus sandbox prepare` builds"),
    ] = None
    sandbox_runtime: Annotated[
        str | None,
        Field(description="OCI runtime of Docker's sandboxes, such as `runsc` (gVisor); unset: the engine's own"),
    ] = None
    code_timeout_s: Annotated[
        float, Field(gt=0, le=3600, description="Seconds that one call of the code interpreter may take")
    ] = 120.0
    api_keys: Annotated[
        str | None,
        Field(
            description="Bearer keys, comma-separated, each `key` or `key:project`, beside those of `adlatus keys`; "
            "with neither: loopback without keys"
        ),
        NoDecode,
    ] = Field(default=None, repr=False)
    run_expires_after_s: Annotated[int, Field(ge=1, description="Seconds until an unfinished run expires")] = 600
    ingestion_concurrency: Annotated[
        int, Field(ge=0, description="Files that one process makes searchable at a time; 0: none, leave it to others")
    ] = 2
    run_concurrency: Annotated[int, Field(ge=1, description="Runs that one process executes at a time")] = 400
    project_run_concurrency: Annotated[
        int | None,
        Field(ge=1, description="Runs of one project that all processes together execute at a time; unset: no limit"),
    ] = None
    max_connections: Annotated[
        int, Field(ge=1, description="Connections that one process keeps open; idle ones give way (SECURITY.md)")
    ] = 4096
    cors_origins: Annotated[
        str | None, Field(description="Origins of web pages that may call the API, comma-separated, or `*`")
    ] = None
    admin_bind: Annotated[
        str | None,
        Field(
            description="`host:port` of a listener for operators, also of `adlatus worker`: `/healthz`, `/readyz` with "
            "details and `/metrics`, without a key (docs/observing.md)"
        ),
    ] = None
    log_format: Annotated[
        Literal["auto", "console", "json"],
        Field(description="`console` on a terminal and `json` elsewhere when `auto`"),
    ] = "auto"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Field(description="Least level to log")] = "info"

    @model_validator(mode="after")
    def _keys_are_well_formed(self) -> Self:
        _ = self.keys
        return self

    @field_validator("admin_bind")
    @classmethod
    def _admin_bind_is_an_address(cls, value: str | None) -> str | None:
        if value is not None:
            _address(value)
        return value

    @property
    def admin_address(self) -> tuple[str, int] | None:
        """Host and port of `admin_bind`."""
        return None if self.admin_bind is None else _address(self.admin_bind)

    @property
    def keys(self) -> tuple[ApiKey, ...]:
        """The keys of `api_keys`, parsed."""
        entries = [entry.strip() for entry in (self.api_keys or "").split(",") if entry.strip()]
        keys = []
        for number, entry in enumerate(entries, 1):
            secret, _, project = entry.partition(":")
            if not secret or (":" in entry and not project):
                raise ValueError(f"ADLATUS_API_KEYS: entry {number} is neither `key` nor `key:project`")
            keys.append(ApiKey(SecretStr(secret), project or DEFAULT_PROJECT))
        return tuple(keys)

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins of `cors_origins`, parsed."""
        return tuple(origin.strip().rstrip("/") for origin in (self.cors_origins or "").split(",") if origin.strip())


def _address(bind: str) -> tuple[str, int]:
    host, colon, port = bind.rpartition(":")
    bare = ":" in host and not (host.startswith("[") and host.endswith("]"))
    if not colon or not host or bare or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65_535:
        raise ValueError(f"'{bind}' is no address to listen on: write host:port, as in 127.0.0.1:9090 or [::1]:9090")
    return host, int(port)


@lru_cache(maxsize=256)  # asked for every request
def is_loopback(host: str) -> bool:
    """Whether an address to listen on, or the host part of a `Host` header, can only mean this machine."""
    name = host.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=256)
def host_name(url: str) -> str:
    """The host part of a URL; nothing where there is none, or none that can be made out."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
