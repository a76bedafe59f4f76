"""Hand mapping of the published network's weight names onto ours, for the parity test."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

HEADS = {"id": "cls", "charge": "charge", "pt": "pt", "eta": "eta", "phi": "phi", "energy": "energy"}


def read_reference_weights(path: Path) -> dict[str, np.ndarray]:
    """Return the weights by the last two parts of their path, e.g. cg_id_0_msg_0/w_t."""
    weights: dict[str, np.ndarray] = {}

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            parts = name.split(":")[0].split("/")
            stack = parts[0]
            key = f"{stack}/codebook" if parts[-1] == "lsh_projections" else "/".join(parts[-2:])
            weights[key] = node[()]

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return weights


def load_reference_weights(model: Any, weights: dict[str, np.ndarray]) -> None:
    """Assign every weight of the published network to our model; each must be used exactly once."""
    left = dict(weights)

    def assign(variable: Any, key: str) -> None:
        variable.assign(left.pop(key))

    def assign_ffn(ffn: Any, prefix: str) -> None:
        for i, dense in enumerate([*ffn.hidden, ffn.out]):
            assign(dense.kernel, f"{prefix}_dense_{i}/kernel")
            assign(dense.bias, f"{prefix}_dense_{i}/bias")

    assign_ffn(model.node_encoding, "node_encoding")
    for layer in (*model.cg_id, *model.cg_reg):
        name = layer.name
        assign(layer.layernorm.gamma, f"{name}_layernorm1/gamma")
        assign(layer.layernorm.beta, f"{name}_layernorm1/beta")
        assign_ffn(layer.ffn_dist, f"{name}_ffn_dist")
        assign(layer.binning.codebook, f"{name}/codebook")
        for i, message in enumerate(layer.messages):
            for weight in ("w_t", "b_t", "w_h", "theta"):
                assign(getattr(message, weight), f"{name}_msg_{i}/{weight}")
    assign(model.decoding.layernorm.gamma, "output_layernorm/gamma")
    assign(model.decoding.layernorm.beta, "output_layernorm/beta")
    for head, name in HEADS.items():
        assign_ffn(getattr(model.decoding, f"ffn_{head}"), f"ffn_{name}")
    assert not left, sorted(left)
