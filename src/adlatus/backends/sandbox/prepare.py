"""`adlatus sandbox prepare`: sees to it that model-written code has something to run in. May be killed at any time."""

import os
import shutil
import subprocess

import docker
import structlog

from adlatus.backends.sandbox import environment, image, parts
from adlatus.errors import StartupError
from adlatus.settings import Settings

log = structlog.get_logger(__name__)

_OFF = "To do without the code interpreter: ADLATUS_SANDBOX=off."


def prepare(settings: Settings, base_image: str | None = None) -> str:
    """Prepare what `settings.sandbox` asks for, unless it is there, and say in a sentence what there is.

    Raises `StartupError` with advice where nothing can be had.
    """
    if settings.sandbox == "off":
        return "The code interpreter is off (ADLATUS_SANDBOX=off): there is nothing to prepare."
    client = None if settings.sandbox == "bubblewrap" else image.connect()
    if client is not None:
        try:
            return _prepare_image(client, settings, base_image)
        except StartupError as error:
            if settings.sandbox == "docker" or find_bubblewrap() is None:
                raise
            log.warning("going on with bubblewrap, which confines less than Docker", reason=str(error))
        finally:
            client.close()
    elif settings.sandbox == "docker":
        raise StartupError(
            "No Docker engine answers, and ADLATUS_SANDBOX=docker wants one. Start Docker, or name another engine "
            "in DOCKER_HOST; this user needs the right to use it."
        )
    return _prepare_environment(settings)


def find_bubblewrap() -> str | None:
    """The path of bubblewrap's program."""
    return shutil.which("bwrap")


def _prepare_image(client: docker.DockerClient, settings: Settings, base_image: str | None) -> str:
    name = image.name(settings)
    try:
        if image.exists(client, name):
            return f"The sandbox image {name} is there."
        if settings.sandbox_image is not None:
            raise StartupError(
                f"The Docker engine has no image {name}, which ADLATUS_SANDBOX_IMAGE names: docker pull it, or unset "
                "that to have one built."
            )
        with environment.locked(settings.data_dir):
            if not image.exists(client, name):
                image.build(client, name, base_image)
    except image.ENGINE_ERRORS as error:
        raise StartupError(f"The Docker engine answers with an error: {error}") from error
    return f"The sandbox image {name} is built."


def _prepare_environment(settings: Settings) -> str:
    if found := environment.find(settings.data_dir) if find_bubblewrap() else None:
        return f"bubblewrap's environment is in {found.python.parent}."
    with environment.locked(settings.data_dir) as lock:
        if find_bubblewrap() is None:
            _install_bubblewrap(settings, lock)
        found = environment.build(settings.data_dir, lock)
    return f"bubblewrap's environment is in {found.python.parent}."


def _install_bubblewrap(settings: Settings, lock: int) -> None:
    """Install bubblewrap and the image's fonts where that is easy: as root, on Debian and its kin."""
    engine = "" if settings.sandbox == "bubblewrap" else "neither a Docker engine that answers nor "
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise StartupError(
            f"There is {engine or 'no '}bubblewrap on this machine, so the code interpreter has nothing to run in. "
            f"{'Start Docker, or install' if engine else 'Install'} bubblewrap (Debian, Ubuntu: sudo apt install "
            f"bubblewrap; Fedora: sudo dnf install bubblewrap), then: adlatus sandbox prepare. {_OFF}"
        )
    packages = ["bubblewrap", *(parts.folder() / "fonts.txt").read_text("utf-8").split()]
    log.warning(f"there is {engine or 'no '}bubblewrap here: installing it with apt-get", packages=" ".join(packages))
    _apt_get(["update", "-qq"], lock)
    _apt_get(["install", "-qq", "-y", "--no-install-recommends", *packages], lock)
    if find_bubblewrap() is None:
        raise StartupError("apt-get has installed bubblewrap, but its program bwrap is not in PATH.")


def _apt_get(arguments: list[str], lock: int) -> None:
    """In a session of its own: stopped by our Ctrl-C, it would leave packages half installed."""
    finished = subprocess.run(  # noqa: S603 - no shell, and only constants of ours
        ["apt-get", *arguments],  # noqa: S607 - root's PATH
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        pass_fds=[lock],
        start_new_session=True,
    )
    if finished.returncode != 0:
        raise StartupError(
            f"apt-get {arguments[0]} failed: {finished.stderr.strip()[-600:]}\nInstall bubblewrap yourself. {_OFF}"
        )
