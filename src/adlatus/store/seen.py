"""Assistants as this process has last seen them, so that a run need not read its own before it is created.

Nobody tells when one changes: whoever relies on what was seen has its version compared by the statement that does.
"""

from collections import OrderedDict

from sqlalchemy import ColumnClause, Text, literal_column

from adlatus.store.db import Row

VERSION: ColumnClause[str] = literal_column("assistants.xmin::text", Text)
"""The version of a row of `assistants`: PostgreSQL's own, another one after every write."""

MOST = 1024
LONGEST_BYTES = 2**15
"""What an assistant's instructions and tools may take, about, to be remembered: all in all 32 MB at most."""


class SeenAssistants:
    """Rows of `assistants`, each with its `version`, by project and id. The one longest unused is forgotten first."""

    def __init__(self) -> None:
        self._rows: OrderedDict[tuple[str, str], Row] = OrderedDict()

    def get(self, project_id: str, assistant_id: str) -> Row | None:
        """The assistant as it was, if it is remembered."""
        key = project_id, assistant_id
        row = self._rows.get(key)
        if row is not None:
            self._rows.move_to_end(key)
        return row

    def keep(self, row: Row) -> None:
        """Remember an assistant, unless it is too long."""
        key = row["project_id"], row["id"]
        self._rows.pop(key, None)
        if len(row["instructions"] or "") * 4 + len(str(row["tools"])) <= LONGEST_BYTES:
            self._rows[key] = row
            if len(self._rows) > MOST:
                self._rows.popitem(last=False)
