"""What is kept: tables, all SQL (one file per noun), blobs and settings. Never torch, FastAPI or Celery."""
