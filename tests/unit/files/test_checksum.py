import mmap

import pytest

from mlpf.files.checksum import OWN, checksum, checksum_of_bytes

# Published values of the three bytes "abc" (RFC 1321, RFC 3174), and of coreutils: `b2sum -l 128`.
KNOWN = {
    "md5": "900150983cd24fb0d6963f7d28e17f72",
    "sha1": "a9993e364706816aba3e25717850c26c9cd0d89d",
    OWN: "cf4ab791c62b8d2b2109c90275287816",
}


@pytest.mark.parametrize("algorithm", KNOWN)
def test_files_and_bytes_have_the_known_checksum(tmp_path, algorithm):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert checksum(path, algorithm) == KNOWN[algorithm]
    assert checksum_of_bytes(memoryview(b"abc"), algorithm) == KNOWN[algorithm]
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        assert checksum_of_bytes(content, algorithm) == KNOWN[algorithm]
