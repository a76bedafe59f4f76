"""Named columns of every array in the package: order, unit and meaning in one place.

Units everywhere: GeV (pt, p, energy), mm (lengths), ns (time), T (field), rad (angles).
A column is reached by name, ``TRACK_FEATURES.index("pt")``, never by a literal number.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlpf.errors import SchemaMismatch


@dataclass(frozen=True)
class Column:
    """One column: name, unit ("" if dimensionless) and meaning."""

    name: str
    unit: str
    meaning: str


@dataclass(frozen=True)
class Columns:
    """An ordered, named set of columns of one kind of row.

    Attributes:
        kind: what one row is, e.g. ``"track"``; used in error messages.
        columns: the columns in storage order.
    """

    kind: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in storage order."""
        return tuple(c.name for c in self.columns)

    @property
    def units(self) -> tuple[str, ...]:
        """Units in storage order."""
        return tuple(c.unit for c in self.columns)

    def __len__(self) -> int:
        """Return the number of columns."""
        return len(self.columns)

    def __iter__(self) -> Iterator[Column]:
        """Iterate over the columns in storage order."""
        return iter(self.columns)

    def index(self, name: str) -> int:
        """Return the position of column ``name``.

        Raises:
            KeyError: no such column; the message lists those that exist.
        """
        try:
            return self.names.index(name)
        except ValueError:
            raise KeyError(f"no {self.kind} column {name!r}; columns are {', '.join(self.names)}") from None

    def slice(self, first: str, last: str) -> slice:
        """Return the slice from column ``first`` to column ``last``, both included."""
        return slice(self.index(first), self.index(last) + 1)

    def stack(self, values: Mapping[str, npt.NDArray]) -> npt.NDArray[np.float64]:
        """Stack named columns of equal length n in storage order, [n, F]; those not given are zero.

        Raises:
            KeyError: no such column.
        """
        rows = np.zeros((len(next(iter(values.values()))), len(self)))
        for name, column in values.items():
            rows[:, self.index(name)] = column
        return rows

    def require(self, names: Sequence[str], where: str) -> None:
        """Check that ``names`` equal these columns, in order.

        Raises:
            SchemaMismatch: names the first column that differs.
        """
        for i, expected in enumerate(self.names):
            found = names[i] if i < len(names) else "nothing"
            if found != expected:
                raise SchemaMismatch(f"{where}: {self.kind} column {i} is {found!r}, expected {expected!r}")
        if len(names) > len(self):
            raise SchemaMismatch(
                f"{where}: {self.kind} has {len(names)} columns, expected {len(self)}; "
                f"first extra column is {names[len(self)]!r}"
            )


# Values of the first feature column of CLIC events; a raw hit has the value of a cluster.
ELEMTYPE_TRACK = 1
ELEMTYPE_CLUSTER = 2
# Delphes sets use the reverse values, as the published files do.
DELPHES_ELEMTYPE_TOWER = 1
DELPHES_ELEMTYPE_TRACK = 2

TRACK_FEATURES = Columns(
    "track",
    (
        Column("elemtype", "", "element type, 1 = track"),
        Column("pt", "GeV", "transverse momentum, 3e-4 |B / omega|"),
        Column("eta", "", "pseudorapidity of the momentum"),
        Column("sin_phi", "", "sine of the azimuth at the perigee"),
        Column("cos_phi", "", "cosine of the azimuth at the perigee"),
        Column("p", "GeV", "momentum"),
        Column("chi2", "", "chi squared of the track fit"),
        Column("ndf", "", "degrees of freedom of the track fit"),
        Column("dEdx", "GeV/mm", "energy loss per length"),
        Column("dEdxError", "GeV/mm", "uncertainty of dEdx"),
        Column("radiusOfInnermostHit", "mm", "radius of the innermost hit"),
        Column("tanLambda", "", "tangent of the dip angle"),
        Column("D0", "mm", "transverse impact parameter"),
        Column("omega", "1/mm", "signed curvature"),
        Column("Z0", "mm", "longitudinal impact parameter"),
        Column("time", "ns", "time of the track state"),
    ),
)

CLUSTER_FEATURES = Columns(
    "cluster",
    (
        Column("elemtype", "", "element type, 2 = cluster"),
        Column("et", "GeV", "transverse energy, energy x sin(iTheta)"),
        Column("eta", "", "pseudorapidity of the intrinsic direction"),
        Column("sin_phi", "", "sine of the intrinsic azimuth"),
        Column("cos_phi", "", "cosine of the intrinsic azimuth"),
        Column("energy", "GeV", "cluster energy"),
        Column("position.x", "mm", "cluster position"),
        Column("position.y", "mm", "cluster position"),
        Column("position.z", "mm", "cluster position"),
        Column("iTheta", "rad", "intrinsic polar angle"),
        Column("energy_ecal", "GeV", "energy of the member hits in the ECAL"),
        Column("energy_hcal", "GeV", "energy of the member hits in the HCAL"),
        Column("energy_other", "GeV", "energy of the member hits in the muon system"),
        Column("num_hits", "", "number of member hits"),
        Column("sigma_x", "mm", "unweighted standard deviation of member hit x"),
        Column("sigma_y", "mm", "unweighted standard deviation of member hit y"),
        Column("sigma_z", "mm", "unweighted standard deviation of member hit z"),
    ),
)

# Tracks of hit-based sets: no dE/dx, and the track's type at the end.
HIT_TRACK_FEATURES = Columns(
    "track",
    (
        *(c for c in TRACK_FEATURES if c.name not in ("dEdx", "dEdxError")),
        Column("type", "", "type word of the track as stored"),
    ),
)

HIT_FEATURES = Columns(
    "hit",
    (
        Column("elemtype", "", "element type, 2 = calorimeter hit"),
        Column("et", "GeV", "transverse energy, energy x sin(theta) of the position"),
        Column("eta", "", "pseudorapidity of the position"),
        Column("sin_phi", "", "sine of the azimuth of the position"),
        Column("cos_phi", "", "cosine of the azimuth of the position"),
        Column("energy", "GeV", "hit energy"),
        Column("position.x", "mm", "hit position"),
        Column("position.y", "mm", "hit position"),
        Column("position.z", "mm", "hit position"),
        Column("time", "ns", "hit time"),
        Column("subdetector", "", "0 = ECAL, 1 = HCAL, 2 = muon system"),
        Column("type", "", "type word of the hit as stored"),
    ),
)

DELPHES_TRACK_FEATURES = Columns(
    "track",
    (
        Column("elemtype", "", "element type, 2 = track"),
        Column("pt", "GeV", "transverse momentum"),
        Column("eta", "", "pseudorapidity of the momentum"),
        Column("sin_phi", "", "sine of the azimuth of the momentum"),
        Column("cos_phi", "", "cosine of the azimuth of the momentum"),
        Column("p", "GeV", "momentum, pt cosh(eta)"),
        Column("eta_outer", "", "pseudorapidity at the calorimeter"),
        Column("sin_phi_outer", "", "sine of the azimuth at the calorimeter"),
        Column("cos_phi_outer", "", "cosine of the azimuth at the calorimeter"),
        Column("charge", "e", "electric charge"),
        Column("is_gen_muon", "", "1 if made by a muon (truth, as Delphes has it)"),
        Column("is_gen_electron", "", "1 if made by an electron (truth, as Delphes has it)"),
    ),
)

DELPHES_TOWER_FEATURES = Columns(
    "tower",
    (
        Column("elemtype", "", "element type, 1 = tower"),
        Column("et", "GeV", "transverse energy"),
        Column("eta", "", "pseudorapidity"),
        Column("sin_phi", "", "sine of the azimuth"),
        Column("cos_phi", "", "cosine of the azimuth"),
        Column("energy", "GeV", "energy"),
        Column("energy_em", "GeV", "energy in the electromagnetic calorimeter"),
        Column("energy_had", "GeV", "energy in the hadronic calorimeter"),
        *(Column(f"unused_{i}", "", "always 0") for i in range(4)),
    ),
)

# A particle, in lists of particles and as target or candidate of an element; all zero without a particle.
PARTICLE_COLUMNS = Columns(
    "particle",
    (
        Column("cls", "", "class index"),
        Column("charge", "e", "electric charge"),
        Column("pt", "GeV", "transverse momentum"),
        Column("eta", "", "pseudorapidity"),
        Column("sin_phi", "", "sine of the azimuth"),
        Column("cos_phi", "", "cosine of the azimuth"),
        Column("energy", "GeV", "energy"),
    ),
)

# Targets in datasets: one row per element.
TARGETS = Columns(
    "target",
    (*PARTICLE_COLUMNS.columns, Column("jet_idx", "", "rank of the jet in pt, 1 = hardest, 0 = in no jet")),
)

# Particles that truth put on no element: one row per event.
ACCOUNT_COLUMNS = Columns(
    "account",
    (
        Column("lost_energy", "GeV", "energy of stable visible particles that is on no target"),
        Column("lost_charge", "e", "charge of stable visible particles that is on no target"),
        Column("num_lost", "", "stable visible particles without a target"),
    ),
)

# X of a CLIC event: [tracks ; clusters], tracks padded on the right with one zero column.
NUM_CLIC_FEATURES = len(CLUSTER_FEATURES)
