"""Giving up every right that parsing does not need. Linux; the first three hold everywhere, the rest where allowed.

1. Another user, if we are root. 2. No new descriptor: neither files nor sockets. 3. Memory, processor time, wall time,
output and processes are limited. 4. A network of our own with nothing in it. 5. Only harmless system calls.
"""

import ctypes
import os
import resource
import signal

from adlatus.retrieval.parsing.order import Order
from adlatus.retrieval.parsing.syscalls import allow_only_harmless_calls

_CLONE_NEWUSER, _CLONE_NEWNET, _CLONE_NEWIPC = 0x10000000, 0x40000000, 0x08000000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38


def confine(order: Order) -> None:
    """Irrevocable. Afterwards no file can be opened and no module loaded. Raises `OSError` if 1 to 3 are impossible."""
    libc = ctypes.CDLL(None, use_errno=True)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 2)  # a library's complaints shall not mix with the text
    os.closerange(3, 1024)
    # Refused in many containers. There the absence of descriptors keeps us off the network alone.
    libc.unshare((0 if order.uid >= 0 else _CLONE_NEWUSER) | _CLONE_NEWNET | _CLONE_NEWIPC)
    if order.uid >= 0:
        os.setgroups([])
        os.setresgid(order.gid, order.gid, order.gid)
        os.setresuid(order.uid, order.uid, order.uid)
    os.nice(10)  # who waits for an answer of the server comes first
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # siblings of the same user cannot look into us
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.alarm(order.wall_s)  # if our parent dies before that took effect
    _limit(order)
    allow_only_harmless_calls()


def _limit(order: Order) -> None:
    for limit, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, order.text_bytes + 4096),
        (resource.RLIMIT_CPU, order.cpu_s),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_AS, order.memory_bytes),
        (resource.RLIMIT_NOFILE, 0),
    ):
        resource.setrlimit(limit, (most, most))
