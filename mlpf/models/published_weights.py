"""Weights of the published graph network (reference MLPF v1.6, HDF5 of Keras 2) into ours.

Names are the last two parts of a weight's path there, for example ``cg_id_0_msg_0/w_t``; only the codebook
of a graph layer lies in a group numbered by creation and is named by its graph layer instead.
"""

from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import numpy.typing as npt

from mlpf.errors import CheckpointError, one_line
from mlpf.layers.feedforward import FFN
from mlpf.layers.message_passing import GHConvDense
from mlpf.models.gnn_dense import PFNetDense

# Our name of each head -> its name there.
HEADS = {"id": "cls", "charge": "charge", "pt": "pt", "eta": "eta", "phi": "phi", "energy": "energy"}
_CODEBOOK = "lsh_projections"
_LISTED = 8


def read_published_weights(path: Path) -> dict[str, npt.NDArray[np.floating]]:
    """Read every weight of a file.

    Returns:
        Name -> array.

    Raises:
        CheckpointError: missing, or not an HDF5 file of weights.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give an .hdf5 file of weights")
    weights: dict[str, npt.NDArray[np.floating]] = {}

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            parts = name.split(":")[0].split("/")
            codebook = parts[-1] == _CODEBOOK
            weights[f"{parts[0]}/{_CODEBOOK}" if codebook else "/".join(parts[-2:])] = node[()]

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable HDF5 file ({one_line(error)})") from error
    return weights


def published_names(model: PFNetDense) -> dict[str, keras.Variable]:
    """Return the name that each weight of our network has there -> the weight.

    Raises:
        CheckpointError: another network, or one with a part that the published one has not.
    """
    if not isinstance(model, PFNetDense):
        raise CheckpointError(
            f"published weights are of the graph network, not of {type(model).__name__}; "
            "set parameters.model to gnn_dense"
        )
    names = shared_names(model)
    for layer in (*model.cg_id, *model.cg_reg):
        for i, message in enumerate(layer.messages):
            if not isinstance(message, GHConvDense):
                raise CheckpointError(
                    f"{layer.name}: no published weights with {type(message).__name__} are known; set "
                    "parameters.combined_graph_layer.node_message.type to GHConvDense and kernel.type to "
                    "NodePairGaussianKernel"
                )
            for weight in ("w_t", "b_t", "w_h", "theta"):
                names[f"{layer.name}_msg_{i}/{weight}"] = getattr(message, weight)
    known = {id(variable) for variable in names.values()}
    ours = [w.path for w in model.weights if id(w) not in known and "seed_generator" not in w.path]
    if ours:
        raise CheckpointError(
            f"{_listed(ours)}: the published network has no such weights; leave out what is not in it "
            "(parameters.use_normalizer, parameters.combined_graph_layer.position_scales)"
        )
    return names


def shared_names(model: PFNetDense) -> dict[str, keras.Variable]:
    """Return what ``published_names`` does, without the weights of kernels and messages."""
    names: dict[str, keras.Variable] = {}

    def add_norm(norm: keras.layers.LayerNormalization | None, prefix: str) -> None:
        if norm is not None:
            names[f"{prefix}/gamma"] = norm.gamma
            names[f"{prefix}/beta"] = norm.beta

    if model.node_encoding is not None:
        names.update(ffn_names(model.node_encoding, "node_encoding"))
    for layer in (*model.cg_id, *model.cg_reg):
        add_norm(layer.layernorm, f"{layer.name}_layernorm1")
        names.update(ffn_names(layer.ffn_dist, f"{layer.name}_ffn_dist"))
        names[f"{layer.name}/{_CODEBOOK}"] = layer.binning.codebook
    add_norm(model.decoding.layernorm, "output_layernorm")
    for head, theirs in HEADS.items():
        names.update(ffn_names(getattr(model.decoding, f"ffn_{head}"), f"ffn_{theirs}"))
    return names


def ffn_names(ffn: FFN, prefix: str) -> dict[str, keras.Variable]:
    """Return the name that each weight of a feed-forward network has there -> the weight."""
    names: dict[str, keras.Variable] = {}
    for i, dense in enumerate([*ffn.hidden, ffn.out]):
        names[f"{prefix}_dense_{i}/kernel"] = dense.kernel
        names[f"{prefix}_dense_{i}/bias"] = dense.bias
    return names


def load_published_weights(path: Path, model: PFNetDense) -> int:
    """Assign every weight of a file to a built model, each exactly once.

    Returns:
        Number of values assigned.

    Raises:
        CheckpointError: names the weights that are missing, unexpected or of another shape.
    """
    weights, names = read_published_weights(path), published_names(model)
    missing, unexpected = sorted(names.keys() - weights.keys()), sorted(weights.keys() - names.keys())
    shapes = [
        f"{name} {weights[name].shape} for {tuple(names[name].shape)}"
        for name in sorted(names.keys() & weights.keys())
        if weights[name].shape != tuple(names[name].shape)
    ]
    found = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    problems = [f"{len(items)} {what}: {_listed(items)}" for what, items in found if items]
    if problems:
        raise CheckpointError(
            f"{path}: weights of another network ({'; '.join(problems)}); "
            "layers and widths in the configuration must be those it was trained with"
        )
    broken = sorted(name for name, values in weights.items() if not np.isfinite(values).all())
    if broken:
        raise CheckpointError(f"{path}: NaN or infinity in {_listed(broken)}; the file is damaged")
    for name, variable in names.items():
        variable.assign(weights[name])
    return sum(values.size for values in weights.values())


def _listed(items: list[str]) -> str:
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return ", ".join(items[:_LISTED]) + more
