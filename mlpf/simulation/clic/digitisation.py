"""Cells of the calorimeters: which cell a point lies in, where its centre is, sums of energy per cell."""

from dataclasses import dataclass

import numpy as np

from mlpf.simulation.clic.detector import Detector
from mlpf.simulation.clic.event_data import HIT_COLLECTIONS, FloatArray, IntArray, Links

ECAL, HCAL, MUON = 0, 1, 2
_BARREL, _PLUS, _MINUS = 0, 1, 2
_SHIFT = 1 << 13  # makes cell numbers along an axis positive in 14 bits
_COLLECTION = np.array(
    [
        [HIT_COLLECTIONS.index(f"{calorimeter}{part}") for part in ("Barrel", "Endcap", "Endcap")]
        for calorimeter in ("ECAL", "HCAL")
    ]
    + [[HIT_COLLECTIONS.index("MUON")] * 3]
)


@dataclass(frozen=True)
class Layers:
    """Where points [S] lie in the layers: ``system`` (ECAL, HCAL, MUON), ``barrel``, ``layer``."""

    system: IntArray
    barrel: np.ndarray
    layer: IntArray


@dataclass(frozen=True)
class Cells:
    """Read-out cells [H] sorted by key, hence by collection, and their contributions.

    Attributes:
        key: system, side, layer and two cell numbers packed into 62 bits or less.
        energy: GeV.
        links: cell -> particle with the particle's energy in the cell in GeV.
        main: [H] index of the deposit with the largest energy in each cell.
    """

    key: IntArray
    energy: FloatArray
    links: Links
    main: IntArray


def calorimeter_layers(x: FloatArray, y: FloatArray, z: FloatArray, detector: Detector) -> Layers:
    """Return the calorimeter layers of points [S] in mm; those in front of the face count as layer 0."""
    cells = detector.granularity
    depth = detector.depth(x, y, z)
    hcal = depth >= detector.ecal_depth
    thickness = np.where(
        hcal,
        (detector.hcal_end - detector.hcal_start) / cells.hcal_layers,
        detector.ecal_depth / cells.ecal_layers,
    )
    start = np.where(hcal, detector.hcal_start, 0.0)
    last = np.where(hcal, cells.hcal_layers, cells.ecal_layers) - 1
    layer = np.clip(np.floor((depth - start) / thickness), 0, last).astype(np.int64)
    return Layers(hcal.astype(np.int64), detector.in_barrel(x, y, z), layer)


def _layer_position(system: IntArray, barrel: np.ndarray, layer: IntArray, detector: Detector) -> FloatArray:
    """Radius (barrel) or |z| (endcap) of the middle of layers [S], mm."""
    cells, muon = detector.granularity, detector.muon
    ecal = (layer + 0.5) * detector.ecal_depth / cells.ecal_layers
    pitch = (detector.hcal_end - detector.hcal_start) / cells.hcal_layers
    hcal = detector.hcal_start + (layer + 0.5) * pitch
    face = np.where(barrel, detector.face_radius, detector.face_half_length)
    yoke = np.where(
        barrel, muon.barrel_radius + layer * muon.barrel_step, muon.endcap_z + layer * muon.endcap_step
    )
    return np.where(system == MUON, yoke, face + np.where(system == HCAL, hcal, ecal))


def _cell_side(system: IntArray, detector: Detector) -> FloatArray:
    cells = detector.granularity
    return np.array([cells.ecal_cell, cells.hcal_cell, detector.muon.cell])[system]


def cell_keys(layers: Layers, x: FloatArray, y: FloatArray, z: FloatArray, detector: Detector) -> IntArray:
    """Return the keys [S] of the cells that hold points [S] in mm."""
    side = _cell_side(layers.system, detector)
    radius = _layer_position(layers.system, layers.barrel, layers.layer, detector)
    columns = np.floor(2 * np.pi * radius / side)
    turn = np.mod(np.arctan2(y, x) / (2 * np.pi), 1.0)
    ring = np.minimum(np.floor(turn * columns), columns - 1)
    first = np.where(layers.barrel, ring, np.floor(x / side) + _SHIFT).astype(np.int64)
    second = (np.floor(np.where(layers.barrel, z, y) / side) + _SHIFT).astype(np.int64)
    part = np.where(layers.barrel, _BARREL, np.where(z > 0, _PLUS, _MINUS))
    return (((layers.system << 2 | part) << 7 | layers.layer) << 14 | first) << 14 | second


def cell_centres(key: IntArray, detector: Detector) -> tuple[IntArray, FloatArray, FloatArray, FloatArray]:
    """Return (collection, x, y, z) of cells [H], mm."""
    second, first = key & 0x3FFF, (key >> 14) & 0x3FFF
    layer, part, system = (key >> 28) & 0x7F, (key >> 35) & 3, key >> 37
    barrel = part == _BARREL
    side = _cell_side(system, detector)
    position = _layer_position(system, barrel, layer, detector)
    phi = 2 * np.pi * (first + 0.5) / np.floor(2 * np.pi * position / side)
    along = (second - _SHIFT + 0.5) * side
    x = np.where(barrel, position * np.cos(phi), (first - _SHIFT + 0.5) * side)
    y = np.where(barrel, position * np.sin(phi), along)
    z = np.where(barrel, along, np.where(part == _PLUS, position, -position))
    return _COLLECTION[system, part], x, y, z


def thresholds(key: IntArray, detector: Detector) -> FloatArray:
    """Return the read-out threshold in GeV of cells [H]; the muon system has none."""
    cells = detector.granularity
    return np.array([cells.ecal_threshold, cells.hcal_threshold, 0.0])[key >> 37]


def _starts(changes: np.ndarray) -> IntArray:
    """First index of each run, where ``changes`` [S - 1] marks borders between sorted entries."""
    return np.concatenate([[0], np.flatnonzero(changes) + 1])


def digitise(key: IntArray, particle: IntArray, energy: FloatArray, detector: Detector) -> Cells:
    """Sum deposits [S] into cells, drop the cells below threshold and their links."""
    if len(key) == 0:
        no_index, no_value = np.zeros(0, dtype=np.int64), np.zeros(0)
        return Cells(no_index, no_value, Links(no_index, no_index, no_value), no_index)
    order = np.lexsort((particle, key))
    key, particle, energy = key[order], particle[order], energy[order]
    begin = _starts((np.diff(key) != 0) | (np.diff(particle) != 0))
    part_key, part_particle = key[begin], particle[begin]
    part_energy = np.add.reduceat(energy, begin)
    cell_begin = _starts(np.diff(part_key) != 0)
    cell_key = part_key[cell_begin]
    cell_energy = np.add.reduceat(part_energy, cell_begin)
    cell_of_part = np.repeat(np.arange(len(cell_key)), np.diff(np.append(cell_begin, len(part_key))))

    # Sorted by cell, then energy: the last part of each cell is its largest.
    largest = np.lexsort((part_energy, cell_of_part))[np.append(cell_begin[1:], len(part_key)) - 1]
    main = order[begin[largest]]
    kept = cell_energy >= thresholds(cell_key, detector)
    number = np.cumsum(kept) - 1
    linked = kept[cell_of_part]
    links = Links(number[cell_of_part[linked]], part_particle[linked], part_energy[linked])
    return Cells(cell_key[kept], cell_energy[kept], links, main[kept])
