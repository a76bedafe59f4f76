"""Commands that make and inspect data."""

from pathlib import Path
from typing import Any

import click

from mlpf.cli.options import (
    MAX_INT32,
    PATH,
    FiniteRange,
    Fractions,
    detector_option,
    overwrite_option,
    shard_option,
)
from mlpf.cli.placement import placement_options
from mlpf.physics.samples import CLIC_SAMPLES, DELPHES_SAMPLES

_SIMULATE_HELP = f"""Generate SAMPLE with Pythia8 and a detector, and write ROOT files.

CLIC-like detector, EDM4HEP files: {", ".join(sample.simulation_name for sample in CLIC_SAMPLES.values())}.

Proton collisions with pile-up, CMS-like detector, Delphes files:
{", ".join(sample.simulation_name for sample in DELPHES_SAMPLES.values())}.
"""


@click.command(help=_SIMULATE_HELP)
@click.argument("sample")
@click.option("-n", "--num-events", type=click.IntRange(1), required=True, help="Events to simulate.")
@click.option("-o", "--output", type=PATH, required=True, help="Directory for the files.")
@click.option("--events-per-file", type=click.IntRange(1), default=100, help="Events per file.")
@click.option(
    "--first-event", type=click.IntRange(0, MAX_INT32), default=0, help="Number of the first event."
)
@click.option(
    "--seed",
    type=click.IntRange(0, MAX_INT32),
    default=1,
    help="Seed; the same seed gives the same events.",
)
@click.option(
    "--layout",
    type=click.Choice(["old", "new", "rntuple"]),
    default="old",
    help="podio 0.16 (as the published files), podio 1.1, or podio 1.1 as RNTuple; the events are the same.",
)
@click.option(
    "--granularity",
    type=click.Choice(["clusters", "hits", "fine"]),
    default="clusters",
    help="Calorimeter cells: coarse and fast for networks of clusters; as in the detector for networks of "
    "hits (about 5,300 in a top pair event); more hits still (11,000).",
)
@detector_option
@click.option("--pileup", type=FiniteRange(0), help="Mean pile-up of delphes_* samples, default 200.")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["root", "pickle"]),
    default="root",
    help="Files of delphes_* samples: ROOT or pickles as published; the events are the same.",
)
@placement_options
@overwrite_option
def simulate(sample: str, num_events: int, output: Path, **options: Any) -> None:
    """Generate events of one sample."""
    if options["first_event"] + num_events - 1 > MAX_INT32:
        raise click.UsageError(f"--first-event and -n: event numbers go up to {MAX_INT32}; take smaller ones")
    from mlpf.workflows import simulate as workflow

    workflow.run(sample, num_events, output, **options)


@click.command()
@click.argument("inputs", nargs=-1, required=True)
@click.option("-o", "--output", type=PATH, required=True, help="Directory for the parquet files.")
@click.option(
    "--elements",
    type=click.Choice(["clusters", "hits"]),
    default="clusters",
    help="Elements of EDM4HEP events besides tracks.",
)
@detector_option
@placement_options
@shard_option
@overwrite_option
def postprocess(inputs: tuple[str, ...], output: Path, **options: Any) -> None:
    """Convert files of events into parquet files with features and targets.

    INPUTS are EDM4HEP ROOT files, Delphes ROOT files or pickles (.pkl, .pkl.bz2), directories or globs.
    A finished output is kept. It is made again if its input file, the rules of truth or the format of outputs
    changed. Other files with the name of an output are replaced only with --overwrite.
    """
    from mlpf.workflows import postprocess as workflow

    workflow.run(inputs, output, **options)


@click.command()
@click.argument("dataset")
@click.option("--data-dir", type=PATH, default=Path("tensorflow_datasets"), help="Where datasets are.")
@click.option(
    "-i",
    "--input",
    "inputs",
    multiple=True,
    required=True,
    help="Parquet files, directories, globs; repeatable.",
)
@click.option("--split-seed", type=int, default=0, help="Seed of the split and of the order.")
@click.option("--split-fractions", type=Fractions(), default=(0.8, 0.1, 0.1), help="Share of each split.")
@placement_options
@shard_option
@click.option("--merge", is_flag=True, help="Join the parts of all shards.")
@overwrite_option
def build(dataset: str, data_dir: Path, inputs: tuple[str, ...], **options: Any) -> None:
    """Build DATASET, e.g. clic_edm4hep/ttbar, from parquet files into array_record splits.

    Choose a new name for your own sample, such as clic_edm4hep/my_sample. Files go to the splits as a whole;
    single events do if there are too few files.
    """
    from mlpf.workflows import build as workflow

    if options["shard"] and options["merge"]:
        raise click.UsageError("--merge joins finished shards; give it without --shard")
    workflow.run(dataset, data_dir, inputs, **options)


@click.command()
@click.argument("samples", nargs=-1, metavar="[SAMPLE]...")
@click.option("-o", "--output", type=PATH, help="Directory; each sample gets a folder there.")
@click.option("--list", "list_samples", is_flag=True, help="Print the table of samples.")
@click.option("--record", help="Take the files from this record; SAMPLE may then be globs of file names.")
@click.option("--max-files", type=click.IntRange(1), help="Largest number of files of each sample.")
@click.option("--dry-run", is_flag=True, help="Print which files would be fetched.")
@click.option("-j", "--workers", type=click.IntRange(1, 4), default=2, help="Number of parallel downloads.")
@click.option("--api", default="https://zenodo.org/api", help="Address of the archive or of a mirror.")
def download(
    samples: tuple[str, ...], output: Path | None, list_samples: bool, record: str | None, **options: Any
) -> None:
    """Fetch public SAMPLEs of events; interrupted downloads continue."""
    if not list_samples and not samples and record is None:
        raise click.UsageError("name a SAMPLE; mlpf download --list shows them")
    if not list_samples and output is None:
        raise click.UsageError("give the directory with -o")
    from mlpf.workflows import download as workflow

    if list_samples or output is None:
        workflow.print_samples()
    else:
        workflow.run(samples, output, record=record, **options)


@click.group()
def data() -> None:
    """Check and show prepared data."""


@data.command("check")
@click.argument("path", metavar="DIR", type=PATH)
@click.option("-o", "--output", type=PATH, help="Directory for the figures; default DIR/check.")
def check(path: Path, output: Path | None) -> None:
    """Check the prepared dataset DIR (<name>/<version>) and draw its columns; exit code 2 if it is wrong."""
    from mlpf.workflows import data_check as workflow

    workflow.run(path, output)


@data.command("show")
@click.argument("path", metavar="FILE|DIR", type=PATH)
@click.option("-e", "--event", type=click.IntRange(0), default=0, help="Position of the event, from 0.")
@click.option("--split", help="Split of a dataset; default train, or the first one.")
@click.option(
    "--elements",
    type=click.Choice(["clusters", "hits"]),
    help="Elements of an EDM4HEP file, default clusters.",
)
@click.option(
    "-o",
    "--output",
    type=PATH,
    help="PNG, PDF or SVG file; default <name>_event<i>.png in the working directory.",
)
@detector_option
def show(path: Path, event: int, **options: Any) -> None:
    """Draw one event of a ROOT, pickle or parquet FILE or of a prepared dataset DIR; print its contents."""
    from mlpf.workflows import data_show as workflow

    workflow.run(path, event, **options)
