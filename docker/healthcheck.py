"""Whether the process of this container answers: the image's health check. Needs nothing but Python."""

import os
import sys
from http.client import HTTPConnection, HTTPException


def address(environment: dict[str, str]) -> tuple[str, int]:
    """Where it answers: at its own address for operators, which a worker has too, else where it serves."""
    host, _, port = environment.get("ADLATUS_ADMIN_BIND", "").rpartition(":")
    if not port:
        host, port = environment.get("ADLATUS_HOST", ""), environment.get("ADLATUS_PORT") or "8000"
    here = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - all addresses are this one too
    bare = host.strip("[]")
    return here.get(bare, bare), int(port)


def main() -> int:
    """The exit code: 0 if it is alive."""
    connection = HTTPConnection(*address(dict(os.environ)), timeout=4)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
    except (OSError, HTTPException) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0 if answer.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
