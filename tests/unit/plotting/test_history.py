from mlpf.plotting.history import loss_curve, loss_names

HISTORY = [
    {"epoch": e, "loss": 100 / e, "val_loss": 90 / e, "cls_loss": 1.0, "seconds": 2.0, "val_seconds": 1.0}
    for e in (1, 2, 3)
]


def test_losses_are_those_recorded_for_training_and_validation():
    assert loss_names(HISTORY) == ["loss"]
    assert loss_names([]) == []


def test_curves_hold_every_epoch():
    (axes,) = loss_curve(HISTORY, "loss").axes
    training, validation = axes.get_lines()
    assert training.get_xydata().tolist() == [[1, 100], [2, 50], [3, 100 / 3]]
    assert validation.get_ydata().tolist() == [90, 45, 30]
    assert axes.get_xlabel() == "epoch"


def test_epochs_without_the_loss_are_left_out():
    (axes,) = loss_curve([{"epoch": 1, "loss": 2.0}, {"epoch": 2}], "loss").axes
    assert [len(line.get_xydata()) for line in axes.get_lines()] == [1, 0]
