"""Tables of metadata: CSV, JSON lines and parquet."""
