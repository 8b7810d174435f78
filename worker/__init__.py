"""The Celery side: the table of phases and their types, attempts at shards, ingest, analysis, and what goes out."""
