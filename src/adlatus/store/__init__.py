"""The database: tables, statements, paging, leases and the event log. SQLAlchemy builds the SQL, asyncpg carries it."""
