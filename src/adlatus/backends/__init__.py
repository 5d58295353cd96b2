"""The outside world: one file per service, with its protocol, its implementations and their errors. Never the store."""
