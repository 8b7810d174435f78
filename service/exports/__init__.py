"""`/jobs/{id}/export`: one file for each format."""
