"""Objects in and out as files, ids preserved: what other servers have exported, and back-ups of this one."""
