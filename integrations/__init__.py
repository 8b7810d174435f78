"""`make integrations`: every step of `docs/pipelines/` run by its own framework, killed, and tried again."""
