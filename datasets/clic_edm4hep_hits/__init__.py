"""CLIC events of tracks and calorimeter hits, from EDM4HEP files."""
