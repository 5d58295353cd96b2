"""Where model-written Python runs: one session for each thread, each in a sandbox that holds it on hostile terms.

events        what happens while code runs, and the files that it leaves: what the run tool sees
engine        what a kind of sandbox has to offer, and the errors of all of them
docker        sandboxes as containers of a Docker engine
bubblewrap    sandboxes as processes of this machine, with `uids` and `cgroups` beside it
messages      the lines of the protocol: everything that comes from a sandbox is hostile
session       one sandbox in use: execute code, put and get files
pool          the sessions of a server process: which thread has which, warm ones, the end of those that nobody uses
availability  whether this process has sandboxes now, and what is to be done about it
instance      under which name it makes them, so that its leftovers are found
picking       which engine it is, and what each does not protect from
parts         the files that run inside (docker/sandbox): the other end of the protocol
prepare       sees to it that there is something to run in: `image` for Docker, `environment` for bubblewrap

Nothing here knows rows or runs.
"""
