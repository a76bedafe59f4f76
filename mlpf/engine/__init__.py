"""Run tasks in other processes, on this machine or on a cluster, through one interface."""
