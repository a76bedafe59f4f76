"""One event through all stages: generator, tracker, calorimeter, clustering, rule-based particle flow."""

from mlpf.simulation.clic.baseline import reconstruct_candidates
from mlpf.simulation.clic.calorimeter import simulate_hits
from mlpf.simulation.clic.clustering import cluster_hits
from mlpf.simulation.clic.detector import Detector
from mlpf.simulation.clic.event_data import SimulatedEvent
from mlpf.simulation.clic.generator import Generator
from mlpf.simulation.clic.propagation import propagate
from mlpf.simulation.clic.tracker import reconstruct_tracks
from mlpf.simulation.seeding import Stage, event_rng


def simulate_event(
    generator: Generator, seed: int, sample: str, number: int, detector: Detector
) -> SimulatedEvent:
    """Simulate one event, which depends on these arguments only.

    Args:
        generator: of ``sample`` and ``seed``.
        seed: seed of the sample.
        sample: name of the sample.
        number: event number, not negative.
        detector: geometry, field and granularity.

    Returns:
        Everything from the particles to the candidates.
    """
    particles = generator.generate(number)
    propagation = propagate(particles, detector)
    tracks = reconstruct_tracks(
        particles, propagation, detector, event_rng(seed, sample, number, Stage.TRACKS)
    )
    hits = simulate_hits(
        particles,
        propagation,
        detector,
        event_rng(seed, sample, number, Stage.SHOWERS),
        event_rng(seed, sample, number, Stage.NOISE),
    )
    clusters = cluster_hits(hits, detector)
    candidates = reconstruct_candidates(tracks, hits, clusters, detector)
    return SimulatedEvent(number, particles, tracks, hits, clusters, candidates)
