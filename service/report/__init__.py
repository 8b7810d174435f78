"""`/jobs/{id}/report`: the page, and what stands on it."""
