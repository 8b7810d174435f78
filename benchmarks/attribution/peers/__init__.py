"""Adapters of others' packages. They run in an environment of their own (`requirements/peers.txt`) and import nothing
of ours: `run.py` is called with a file of tensors and answers with scores."""
