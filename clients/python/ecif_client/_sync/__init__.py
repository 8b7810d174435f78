"""Made of `_async` by `make format`: what is mended is mended there."""
