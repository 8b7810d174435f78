"""Readers: from one uploaded file to its image-text pairs, streamed and checked, whatever the file was written by.

Nothing here writes a blob or a row, or knows who sent the file: it imports nothing of ours. The door is
`readers.upload.UploadReader`. This file imports nothing: the programs of the sandbox start with as little as they can.
"""
