"""The version of the code, stored with every job so that a result says which code made it."""

from importlib.metadata import version

CODE_VERSION: str = version("ecif")
