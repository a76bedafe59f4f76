from mlpf.plotting.latency import latency_figure


def test_every_engine_and_batch_size_is_a_curve():
    latencies = [
        {
            "engine": engine,
            "batch_size": size,
            "num_elements": n,
            "p50_ms": 0.1 * n,
            "p95_ms": 0.2 * n,
            "events_per_second": size / (1e-4 * n),
        }
        for engine in ("graph", "onnx")
        for size in (1, 4)
        for n in (512, 128)
    ]
    figure = latency_figure(latencies, "tiny, random events")
    time_axes, rate_axes = figure.axes
    assert [line.get_label() for line in time_axes.lines] == [
        "graph, B = 1",
        "graph, B = 4",
        "onnx, B = 1",
        "onnx, B = 4",
    ]
    assert list(time_axes.lines[0].get_xdata()) == [128, 512]
    assert time_axes.get_ylabel() == "time of one pass [ms]"
    assert rate_axes.get_xlabel() == "elements per event N"
    assert len({line.get_color() for line in rate_axes.lines}) == 2
    assert len({line.get_marker() for line in rate_axes.lines}) == 2
