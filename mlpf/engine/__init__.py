"""Tasks in other processes: a pool on this machine, or pilot jobs of a cluster, behind one interface."""
