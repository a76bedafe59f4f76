"""CLIC events from EDM4HEP files."""
