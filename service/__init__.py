"""The HTTP front: endpoints, schemas, and the one table from domain error to status code."""
