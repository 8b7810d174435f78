"""Images are decoded where a crash cannot take the worker down.

Nothing is imported here: the program in the other process starts with as little as it can.
"""
