"""The Celery side: thin tasks, one step per phase of a job, one reader per file format."""
