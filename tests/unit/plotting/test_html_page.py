from mlpf.plotting.html_page import figure, page, table


def test_texts_are_escaped_and_dollars_stay():
    text = page("a <b> $x", [table(["<i>"], [["1 & 2 $y"]])])
    assert "<title>a &lt;b&gt; $x</title>" in text
    assert "<th>&lt;i&gt;</th>" in text
    assert "<td>1 &amp; 2 $y</td>" in text


def test_pictures_are_inside_the_page(tmp_path):
    path = tmp_path / "jet_response.png"
    path.write_bytes(b"\x89PNG")
    assert 'src="data:image/png;base64,iVBORw=="' in figure(path)
    assert "<figcaption>jet response</figcaption>" in figure(path)
    assert "<figcaption>pt &lt; 1</figcaption>" in figure(path, "pt < 1")
