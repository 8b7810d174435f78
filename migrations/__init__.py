"""The database's history: Alembic, run by `python -m migrations` and by whatever starts the service here."""
