"""The message queue as a doorbell: it tells workers that there may be work, and carries nothing else.

What there is to do stands in PostgreSQL. A lost, late or doubled message costs at most one sweep.
"""
