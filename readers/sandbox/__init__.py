"""What decodes hostile bytes, in confined processes of their own. Nothing is imported here."""
