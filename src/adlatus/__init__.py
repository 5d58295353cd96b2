"""Adlatus: a self-hosted server that speaks the OpenAI Assistants API v2 on the wire.

A map, from the outside in; imports point down only:

- `cli`        the command: serve, worker, migrate, doctor, keys, projects, import, export, models, rehearse
- `doctor`     checks every component, and gives advice
- `app`        the HTTP application: opens resources and the worker, mounts `api`
- `api`        HTTP, one file per noun
- `worker`     claims runs and keeps their leases alive
- `presence`   tells the database that this process lives and what it can do
- `transfer`   objects in and out as files: import, export
- `probing`    whether a process can do its work: what /readyz says
- `measuring`  what is looked up when somebody asks for the metrics
- `runs`       what a run does: lifecycle, commands, loop, journal, hosted tools
- `retrieval`  how files become searchable and are found
- `files`      files and uploads: rows and bytes together
- `administration` keys and projects, as the command makes and lists them
- `tenants`    who may come in, and how much each project may do
- `attaching`  the database for commands that end soon
- `housekeeping` what every process does for all from time to time
- `listening`  sockets to serve on
- `resources`  opens everything outside the process; the only place that picks a backend
- `backends`   the outside: model endpoints and the names that lead to them, relays, linked images, file storage,
                embeddings, vectors, embedded PostgreSQL, wake-ups
- `store`      the database: tables, statements, paging, leases, the event log
- `rehearsal`  the scripted model server
- `wire`       the contract: what JSON comes in and goes out
- `errors`, `validation`, `ids`, `settings`, `telemetry`
"""

from typing import Final

__version__: Final = "0.1.0"
