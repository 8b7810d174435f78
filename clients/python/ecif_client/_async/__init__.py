"""The asynchronous client. `make format` makes `_sync` of this folder: what is mended is mended here."""
