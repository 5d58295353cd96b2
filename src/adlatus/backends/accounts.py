"""System users for programs that must not run as root. Everything here is short or may block."""

import pwd
import subprocess
import time
from contextlib import suppress

_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


class NoAccountError(Exception):
    """The system user cannot be created; the message says why."""


def create(name: str) -> None:
    """Make the system user `name` if it is missing. Raises `NoAccountError`.

    Another process may be doing the same, or may hold the lock of /etc/passwd: then wait.
    """
    command = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    command += ["--shell", "/usr/sbin/nologin", name]
    reason = ""
    give_up_at = time.monotonic() + 5
    while time.monotonic() < give_up_at:
        with suppress(KeyError):
            pwd.getpwnam(name)
            return
        try:
            made = subprocess.run(command, env=_ENVIRONMENT, capture_output=True, check=False)  # noqa: S603
        except OSError as error:
            reason = f"useradd: {error.strerror}"
            break
        reason = made.stderr.decode(errors="replace").strip()
        if made.returncode and "lock" not in reason and "exists" not in reason:
            break
        time.sleep(0.02)
    with suppress(KeyError):
        pwd.getpwnam(name)
        return
    raise NoAccountError(reason)
