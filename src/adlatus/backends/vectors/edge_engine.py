"""The process that owns the embedded index: Qdrant Edge over a folder, asked through its standard input.

A process of its own, because every call of qdrant-edge-py keeps Python's global lock until it is done: a flush to disk
for 0.1 s, an optimisation for minutes, in which a server around it would stand still. `edge` is the other end.
"""

import ctypes
import fcntl
import os
import pickle
import shutil
import signal
import struct
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import qdrant_edge as edge

from adlatus.backends.vectors import points
from adlatus.backends.vectors.edge_queries import belonging, config, hybrid, of_stores, point, schema
from adlatus.backends.vectors.filters import Scalar
from adlatus.backends.vectors.protocol import PREFIX, Chunk, Hit, Search, Space
from adlatus.errors import StartupError

HEADER = struct.Struct(">Q")
"""The length of the pickled tuple that follows it, in both directions."""

_UNFINISHED = ".unfinished"
_PATIENCE_S = 2.0
_POLL_S = 0.05
_PR_SET_PDEATHSIG = 1


class Engine:
    """The shards of a folder, one per space. Its public methods are what `edge` asks for, by name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shards: dict[str, edge.EdgeShard] = {}
        self._languages: dict[tuple[str, str], frozenset[str]] = {}  # by shard and store, until the store is written to
        for path in sorted(folder.glob(f"{PREFIX}*")):
            if path.suffix == _UNFINISHED:
                shutil.rmtree(path)
            else:
                self._shards[path.name] = edge.EdgeShard.load(str(path))

    def close(self) -> None:
        """Flush and close all shards."""
        for shard in self._shards.values():
            shard.close()

    def ping(self) -> None:
        """Look at every shard."""
        for shard in self._shards.values():
            shard.info()

    def ensure(self, space: Space) -> None:
        """Make the shard of a space unless it is there."""
        self._shard(space)

    def _shard(self, space: Space) -> edge.EdgeShard:
        if space.collection not in self._shards:
            self._shards[space.collection] = self._create(space)
        return self._shards[space.collection]

    def _create(self, space: Space) -> edge.EdgeShard:
        """Make a shard under another name first: who is killed meanwhile leaves no half of one."""
        unfinished = self._folder / f"{space.collection}{_UNFINISHED}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        shard = edge.EdgeShard.create(str(unfinished), config(space))
        for field, index in schema().items():
            shard.update(edge.UpdateOperation.create_field_index(field, index))
        shard.close()
        finished = unfinished.rename(self._folder / space.collection)
        return edge.EdgeShard.load(str(finished))

    def upsert(self, space: Space, chunks: Sequence[Chunk]) -> None:
        """Write chunks to the log of the shard; `flush` makes them durable."""
        self._forget_languages({chunk.vector_store_id for chunk in chunks})
        self._shard(space).update(edge.UpdateOperation.upsert_points([point(space, chunk) for chunk in chunks]))

    def flush(self, space: Space) -> None:
        """Bring everything that was written to disk."""
        self._shard(space).flush()

    def delete(self, vector_store_id: str, file_id: str | None) -> None:
        """Remove chunks from all shards."""
        self._forget_languages({vector_store_id})
        self._everywhere(edge.UpdateOperation.delete_points_by_filter(belonging(vector_store_id, file_id)))

    def set_attributes(self, vector_store_id: str, file_id: str, attributes: Mapping[str, Scalar]) -> None:
        """Replace attributes in all shards."""
        of_file = belonging(vector_store_id, file_id)
        payload = points.attributes_payload(attributes)
        self._everywhere(edge.UpdateOperation.set_payload_by_filter(of_file, payload))

    def _everywhere(self, operation: edge.UpdateOperation) -> None:
        for shard in self._shards.values():
            shard.update(operation)
            shard.flush()

    def count(self, space: Space, vector_store_id: str, file_id: str | None) -> int:
        """Count chunks."""
        return self._shard(space).count(edge.CountRequest(filter=belonging(vector_store_id, file_id), exact=True))

    def chunks(self, space: Space, ids: Sequence[str]) -> list[Chunk]:
        """The chunks of some points, in any order."""
        found = self._shard(space).retrieve([*ids], with_payload=True, with_vector=False)
        return [points.chunk_of(record.payload) for record in found]

    def languages(self, space: Space, vector_store_ids: Sequence[str]) -> frozenset[str]:
        """The languages of the chunks of some stores. Every search asks, and the engine looks at every chunk for it."""
        return frozenset().union(*(self._languages_of(space, each) for each in vector_store_ids))

    def _languages_of(self, space: Space, vector_store_id: str) -> frozenset[str]:
        key = space.collection, vector_store_id
        if key not in self._languages:
            stores = of_stores([vector_store_id])
            request = edge.FacetRequest("language", limit=points.MAX_LANGUAGES, exact=True, filter=stores)
            self._languages[key] = frozenset(str(hit.value) for hit in self._shard(space).facet(request).hits)
        return self._languages[key]

    def _forget_languages(self, vector_store_ids: Collection[str]) -> None:
        self._languages = {key: known for key, known in self._languages.items() if key[1] not in vector_store_ids}

    def search(self, space: Space, search: Search) -> list[Hit]:
        """The best hits."""
        shard = self._shard(space)
        for field in points.to_index(search, shard.info().payload_schema if search.filter else ()):
            shard.update(edge.UpdateOperation.create_field_index(field, edge.PayloadSchemaType.Float))
        return hybrid(shard, space, search)

    def optimize(self) -> None:
        """Merge segments and build graphs. Nothing else is answered meanwhile."""
        for shard in self._shards.values():
            shard.optimize()


# --- The lock


def _own(folder: Path, server_pid: int) -> None:
    """Hold the folder's lock until this process ends: two engines on the same files would damage them."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(folder / "adlatus.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartupError(f"The folder {folder} of the vector index cannot be used: {error.strerror}.") from error
    _lock(descriptor, folder)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{server_pid}\n".encode(), 0)


def _lock(descriptor: int, folder: Path) -> None:
    """Take the lock; with a little patience, because the engine of a killed server ends right after it."""
    for _ in range(int(_PATIENCE_S / _POLL_S)):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_POLL_S)
    owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "that just started"
    raise StartupError(
        f"The vector index in {folder} is in use by the adlatus process {owner}. Stop that one, give this one a folder "
        "of its own with --data-dir, or share a Qdrant server by ADLATUS_QDRANT_URL."
    )


def _open(folder: Path, server_pid: int) -> Engine:
    _own(folder, server_pid)
    try:
        return Engine(folder)
    except Exception as error:
        raise StartupError(
            f"The vector index in {folder} cannot be opened ({error}). If its files are damaged, restore them from a "
            "backup, or remove the folder and add the files to their vector stores again."
        ) from error


# --- Questions and answers


def _serve(engine: Engine, asked: BinaryIO, answers: BinaryIO) -> None:
    """Answer one question after the other until the server is gone."""
    while header := asked.read(HEADER.size):
        size = HEADER.unpack(header)[0]
        number, method, arguments = pickle.loads(asked.read(size))  # noqa: S301 - the server's own, by a private pipe
        _answer(answers, number, *_outcome(getattr(engine, method), arguments))


def _outcome(method: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, str | None]:
    """What it returns, and what went wrong in it: the engine raises plain `Exception`."""
    try:
        return method(*arguments), None
    except Exception as error:  # noqa: BLE001
        return None, f"{type(error).__name__}: {error}"


def _answer(answers: BinaryIO, number: int, value: Any, fault: str | None) -> None:
    pickled = pickle.dumps((number, value, fault), pickle.HIGHEST_PROTOCOL)
    answers.write(HEADER.pack(len(pickled)) + pickled)
    answers.flush()


def main(folder: Path, server_pid: int) -> None:
    """Own the folder, say that all is ready (or why not) as the answer 0, then answer.

    Ends with the server, however that ends, and never before it: signals to the whole group are the server's.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server_pid:
        return
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the engine prints
    try:
        engine = _open(folder, server_pid)
    except StartupError as error:
        _answer(answers, 0, None, str(error))
        return
    _answer(answers, 0, None, None)
    _serve(engine, sys.stdin.buffer, answers)
    engine.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
