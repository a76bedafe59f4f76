"""Write the pod of Kubernetes that trains on 1 to 8 Gaudi cards: python habana/render.py --cards 8."""

import re
import shlex
from pathlib import Path
from typing import Any

import click
import yaml

from mlpf.files.atomic import atomic_write

TEMPLATE = Path(__file__).with_name("pod.yaml")
MAX_CARDS = 8  # of one machine
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_QUANTITY = re.compile(r"([1-9][0-9]*)(Mi|Gi)")


def render(
    cards: int,
    *,
    image: str | None = None,
    command: str | None = None,
    name: str | None = None,
    claim: str | None = None,
    memory: str | None = None,
    hugepages: str | None = None,
    cpus: int | None = None,
) -> dict[str, Any]:
    """Return the pod as plain data; what is None stays as in the template.

    Args:
        cards: Gaudi cards, 1 to 8, each with a process of its own.
        image: container image.
        command: training command; with several cards it is started once per card by mpirun.
        name: of the pod.
        claim: volume claim that is mounted as /data.
        memory: per card, such as ``48Gi``.
        hugepages: of 2 MiB, per card, such as ``12000Mi``.
        cpus: per card.

    Raises:
        ValueError: a value that Kubernetes or the training would refuse.
    """
    if not 1 <= cards <= MAX_CARDS:
        raise ValueError(f"{cards} cards: expected 1 to {MAX_CARDS}, the cards of one machine")
    pod = yaml.safe_load(TEMPLATE.read_text())
    container = pod["spec"]["containers"][0]
    limits = container["resources"]["limits"]
    for what, value in (("name", name), ("claim", claim)):
        if value is not None and not _NAME.fullmatch(value):
            raise ValueError(f"{what} {value!r}: expected small letters, digits and dashes, at most 63")
    if image is not None and (not image or re.search(r"\s", image)):
        raise ValueError(f"image {image!r}: expected a name without spaces, such as registry/mlpf-gaudi:1")
    pod["metadata"]["name"] = name or pod["metadata"]["name"]
    volume = pod["spec"]["volumes"][0]["persistentVolumeClaim"]
    volume["claimName"] = claim or volume["claimName"]
    container["image"] = image or container["image"]
    words = container["command"] if command is None else shlex.split(command)
    container["command"] = _launch(words, cards, is_default=command is None)
    limits["habana.ai/gaudi"] = cards
    limits["cpu"] = str(cards * (int(limits["cpu"]) if cpus is None else cpus))
    limits["memory"] = _times(cards, memory or limits["memory"])
    limits["hugepages-2Mi"] = _times(cards, hugepages or limits["hugepages-2Mi"])
    return pod


def _launch(words: list[str], cards: int, is_default: bool) -> list[str]:
    """Return the command of the container: the training, or mpirun with one training per card."""
    if is_default and cards > 1:
        words = [*words, "-m"]
    if not words:
        raise ValueError("command: is empty; expected such as 'mlpf train -g -c parameters/clic.yaml'")
    if "train" in words and not {"-g", "--habana-enabled"} & set(words):
        raise ValueError(f"command {shlex.join(words)!r}: add -g, or the cards stay idle")
    if cards == 1:
        return words
    if "train" in words and not {"-m", "--horovod-enabled"} & set(words):
        raise ValueError(
            f"command {shlex.join(words)!r}: add -m, or {cards} cards train {cards} models on their own"
        )
    return ["mpirun", "--allow-run-as-root", "--bind-to", "none", "-np", str(cards), *words]


def _times(cards: int, quantity: str) -> str:
    """Return a quantity of memory per card times the number of cards."""
    match = _QUANTITY.fullmatch(quantity)
    if match is None:
        raise ValueError(f"{quantity!r}: expected a whole number with Mi or Gi, such as 48Gi")
    return f"{cards * int(match[1])}{match[2]}"


@click.command(context_settings={"show_default": True})
@click.option("--cards", type=click.IntRange(1, MAX_CARDS), default=1, help="Gaudi cards.")
@click.option("--image", help="Container image; default that of pod.yaml, as is all that follows.")
@click.option("--command", "command", help="Training command.")
@click.option("--name", help="Name of the pod.")
@click.option("--claim", help="Volume claim that is mounted as /data.")
@click.option("--memory", help="Memory per card, e.g. 48Gi.")
@click.option("--hugepages", help="Huge pages of 2 MiB per card, e.g. 12000Mi.")
@click.option("--cpus", type=click.IntRange(1), help="CPU cores per card.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File; default the terminal.")
def main(cards: int, output: Path | None, **options: Any) -> None:
    """Write the pod that trains on Gaudi cards of one machine."""
    try:
        text = yaml.safe_dump(render(cards, **options), sort_keys=False)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if output is None:
        click.echo(text, nl=False)
        return
    with atomic_write(output) as part:
        part.write_text(text)


if __name__ == "__main__":
    main()
