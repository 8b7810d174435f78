"""Everything on this machine: its own PostgreSQL and Redis, migrations, API, worker and sweeper as child processes."""
