"""The phases of a dataset: fetch, index, ingest (`read`), join, register."""
