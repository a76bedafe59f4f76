import os
import subprocess
import sys

from mlpf.machine.tensorflow_noise import known_lines_left_out

NOISE = (
    b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
    b"E0000 00:00:1796053977.670485   32660 cuda_dnn.cc:8310] Unable to register cuDNN factory: Attempting\n"
)
IMPORT = """
import sys
from mlpf.machine.tensorflow_noise import quieten_tensorflow
quieten_tensorflow()
quieten_tensorflow()
assert "tensorflow" not in sys.modules
import tensorflow as tf
print(tf.add(1, 2).numpy(), tf.keras is not None)
sys.stderr.write("heard\\n")
"""


def test_known_lines_are_left_out_and_errors_come_through(capfd):
    with known_lines_left_out():
        os.write(2, NOISE + b"E0000 a real error\n" + NOISE)
        os.write(2, b"no end of line")
    os.write(2, b"\nafter\n")
    assert capfd.readouterr().err == "E0000 a real error\nno end of line\nafter\n"


def test_errors_of_the_block_come_through(capfd):
    try:
        with known_lines_left_out():
            raise ValueError("broken")
    except ValueError:
        os.write(2, b"heard\n")
    assert capfd.readouterr().err == "heard\n"


def test_tensorflow_is_imported_in_silence(repo_root):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(repo_root)}
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "3 True\n"
    assert done.stderr == "heard\n"
