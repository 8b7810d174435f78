"""`/problems`: what the codes of problems mean."""
