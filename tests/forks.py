"""Processes that are forked from one that has imported already what takes long."""

import multiprocessing
import threading
from collections.abc import Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

_CONTEXT = multiprocessing.get_context("forkserver")
_imported: list[str] = []
_changing = threading.Lock()


def forking(modules: Sequence[str]) -> ForkServerContext:
    """The context of processes that begin with these modules, and with no others of ours.

    There is one server of forks in a process: one that has imported something else ends first.
    """
    with _changing:
        if _imported != list(modules):
            forkserver._forkserver._stop()  # type: ignore[attr-defined]
            _CONTEXT.set_forkserver_preload(list(modules))
            _imported[:] = modules
    return _CONTEXT
