"""Stands for the plug-in of Gaudi, which is for another Python and needs its cards."""
