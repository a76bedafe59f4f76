import click
import pytest
from click.testing import CliRunner

from mlpf.cli.data import simulate
from mlpf.cli.options import FiniteRange, Fractions, ShardOf
from mlpf.files.locking import Shard


def test_good_values_are_read():
    assert Fractions().convert("0.8,0.1,0.1", None, None) == (0.8, 0.1, 0.1)
    assert ShardOf().convert("2/10", None, None) == Shard(2, 10)
    assert FiniteRange(0).convert("2.5", None, None) == 2.5


@pytest.mark.parametrize("text", ["nan,0.5,0.5", "0.5,0.5,nan", "inf,0,0", "-0.5,1,0.5", "1,0", "x"])
def test_fractions_that_are_none_are_refused(text):
    with pytest.raises(click.BadParameter, match="expected three fractions"):
        Fractions().convert(text, None, None)


@pytest.mark.parametrize("text", ["nan", "inf", "1e999", "-1", "x"])
def test_numbers_that_are_not_finite_are_refused(text):
    with pytest.raises(click.BadParameter):
        FiniteRange(0).convert(text, None, None)


@pytest.mark.parametrize("text", ["0/1", "2/1", "1", "1/" + "9" * 5000, "\u00b2/3"])
def test_shards_that_are_none_are_refused(text):
    with pytest.raises(click.BadParameter, match="expected I/N"):
        ShardOf().convert(text, None, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ttbar", "-n", "1", "--seed", str(10**20)], "--seed"),
        (["ttbar", "-n", "1", "--first-event", str(2**31)], "--first-event"),
        (["ttbar", "-n", "2", "--first-event", str(2**31 - 1)], "--first-event and -n"),
        (["ttbar", "-n", str(10**20)], "--first-event and -n"),
        (["delphes_ttbar", "-n", "1", "--pileup", "nan"], "--pileup"),
        (["delphes_ttbar", "-n", "1", "--pileup", "inf"], "--pileup"),
    ],
)
def test_numbers_beyond_what_is_simulated_are_refused(tmp_path, arguments, message):
    done = CliRunner().invoke(simulate, [*arguments, "-o", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert message in done.output
    assert not (tmp_path / "out").exists()
