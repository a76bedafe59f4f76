"""Proton collisions with pile-up in Delphes."""
