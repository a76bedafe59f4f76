import hashlib

import pytest

from mlpf.data.download.archive import SAMPLES, in_order, list_record, remote_file
from mlpf.errors import DataError

LISTED_AT = "https://archive.example/api/records/17"
MD5 = hashlib.md5(b"").hexdigest()


class Answers:
    """Stands for the client: one document."""

    def __init__(self, document):
        self.document = document
        self.asked = []

    def get_json(self, url):
        self.asked.append(url)
        return self.document


def nested():
    """Return lists in lists, more than Python can print."""
    value = []
    for _ in range(5000):
        value = [value]
    return value


def entry(**changes):
    return {"key": "a.root", "size": 3, "checksum": f"md5:{MD5}", "listed_at": LISTED_AT} | changes


@pytest.mark.parametrize(
    ("sample", "names", "others"),
    [
        ("delphes_ttbar", ["tev14_pythia8_ttbar_0_0.pkl.bz2"], ["tev14_pythia8_qcd_10_0.pkl.bz2"]),
        ("delphes_qcd", ["tev14_pythia8_qcd_10_49.pkl.bz2"], ["tev14_pythia8_ttbar_9_49.pkl.bz2"]),
        (
            "clic_ttbar",
            ["reco_p8_ee_tt_ecm380_1.root", "p8_ee_tt_ecm380.tar"],
            ["reco_p8_ee_tt_ecm380_PU10_1.root", "reco_p8_ee_qq_ecm380_100001.root"],
        ),
        ("clic_ttbar_pu10", ["reco_p8_ee_tt_ecm380_PU10_1.root"], ["reco_p8_ee_tt_ecm380_1.root"]),
        ("clic_single_pi", ["reco_pi-_1.root", "pi+.tar"], ["reco_pi0_1.root", "reco_kaon0L_1.root"]),
        ("clic_single_electron", ["reco_e-_7.root"], ["reco_mu-_7.root", "reco_p8_ee_tt_ecm380_1.root"]),
        ("clic_ttbar_clusters", ["clic_edm_ttbar_pf.tar"], ["clic_edm_ttbar_pu10_pf.tar"]),
        ("clic_ttbar_hits", ["clic_edm_ttbar_hits_pf10k.tar"], ["clic_edm_ttbar_pf.tar"]),
    ],
)
def test_samples_take_their_files_and_no_others(sample, names, others):
    assert all(SAMPLES[sample].holds(name) for name in names)
    assert not any(SAMPLES[sample].holds(name) for name in others)


def test_no_raw_file_belongs_to_two_samples():
    names = [
        *(
            f"reco_p8_ee_{p}_1.root"
            for p in ("tt_ecm380", "tt_ecm380_PU10", "qq_ecm380", "ZH_Htautau_ecm380")
        ),
        *(f"reco_{gun}_1.root" for gun in ("e-", "mu+", "pi+", "pi0", "gamma", "neutron", "kaon0L")),
    ]
    raw = [sample for sample in SAMPLES.values() if sample.record == "8260741"]
    assert [sum(sample.holds(name) for sample in raw) for name in names] == [1] * len(names)


@pytest.mark.parametrize(
    "files",
    [[{"key": "a"}], {"entries": [{"key": "a"}]}, {"entries": {"a": {"key": "a"}}}],
    ids=["list", "entries", "entries by name"],
)
def test_listings_of_all_versions_are_read(files):
    client = Answers({"files": files})
    assert list_record(client, "https://archive.example/api/", "17") == [{"key": "a", "listed_at": LISTED_AT}]
    assert client.asked == [LISTED_AT]


@pytest.mark.parametrize("document", [[], {}, {"files": 3}, {"files": [1]}, {"files": {"entries": None}}])
def test_answer_without_files_is_an_error(document):
    with pytest.raises(DataError, match="lists no files"):
        list_record(Answers(document), "https://archive.example/api", "17")


@pytest.mark.parametrize("record", ["", "../users", "17?x=1", "1 7"])
def test_record_is_no_path(record):
    client = Answers({"files": []})
    with pytest.raises(DataError, match="not a record"):
        list_record(client, "https://archive.example/api", record)
    assert client.asked == []


@pytest.mark.parametrize(
    ("links", "url"),
    [
        ({"self": "https://x.example/meta", "content": "https://x.example/a"}, "https://x.example/a"),
        ({"self": "https://x.example/a/content"}, "https://x.example/a/content"),
        ({"self": "/files/a"}, "https://archive.example/files/a"),
        (None, f"{LISTED_AT}/files/a%20b.root/content"),
    ],
)
def test_address_of_the_content(links, url):
    file = remote_file(entry(key="a b.root", links=links))
    assert file.url == url
    assert (file.name, file.size, file.checksum) == ("a b.root", 3, f"md5:{MD5}")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../a",
        "a/../../b",
        "/etc/passwd",
        "..\\a",
        "C:a",
        ".hidden",
        "a/.download/b",
        "a\nb",
        "a\x1b[2Jb",
        "a\0b",
        "x" * 201,
        "*",
    ],
)
def test_names_that_are_not_safe_are_refused(name):
    with pytest.raises(DataError, match="not a name that can be written safely") as caught:
        remote_file(entry(key=name))
    assert str(caught.value).isprintable()


def test_names_may_have_folders():
    assert remote_file(entry(key="ttbar/a.root")).name == "ttbar/a.root"


@pytest.mark.parametrize("size", [None, "3", -1, 2.5, True, 2**63, 10**400, nested()])
def test_size_must_be_a_number_of_bytes(size):
    with pytest.raises(DataError, match="expected a number of bytes"):
        remote_file(entry(size=size))


@pytest.mark.parametrize(
    "checksum", [None, "", MD5, "crc32:00000000", nested(), "md5:", "md5:xyz", f"md5:{MD5[:-1]}/"]
)
def test_file_without_usable_checksum_is_refused(checksum):
    with pytest.raises(DataError, match="it cannot be checked"):
        remote_file(entry(checksum=checksum))


@pytest.mark.parametrize(
    "link",
    ["file:///etc/passwd", "http://[", "//[::1/a", "https://a/\ud800", nested()],
    ids=["file", "bracket", "half address", "surrogate", "list"],
)
def test_only_web_addresses_are_followed(link):
    with pytest.raises(DataError, match="expected https") as caught:
        remote_file(entry(links={"self": link}))
    assert str(caught.value).isprintable()


def test_a_name_that_is_a_deep_list_is_refused_like_others():
    document = {"files": [{"key": nested()}]}
    (listed,) = list_record(Answers(document), "https://archive.example/api", "17")
    with pytest.raises(DataError, match="expected a number of bytes"):
        remote_file(listed)


def test_numbers_in_names_sort_by_value():
    names = ["t_10_0", "t_2_10", "t_2_9", "t_2", "a", "7"]
    ordered = [e["key"] for e in in_order([{"key": n} for n in names])]
    assert ordered == ["7", "a", "t_2", "t_2_9", "t_2_10", "t_10_0"]
