"""The graph network once more, in NumPy and float64, from its formulas; independent of Keras.

One event at a time, plain loops over bins: to be read and compared with, not to be fast.
"""

import re
from pathlib import Path

import h5py
import numpy as np

from mlpf.models.published_weights import ffn_names, published_names, shared_names


def formula_weights(names_and_shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Weights from a formula of the position of each weight: no seed, no random numbers."""
    weights = {}
    for number, (name, shape) in enumerate(sorted(names_and_shapes.items())):
        flat = np.sin(1.7 * number + 12.9898 * np.arange(1, np.prod(shape) + 1) ** 1.1)
        values = flat.reshape(shape) / np.sqrt(shape[0])
        weights[name] = (1.0 + 0.1 * values if name.endswith("gamma") else values).astype(np.float32)
    return weights


def write_published(path: Path, model, change=None, libver=None) -> dict[str, np.ndarray]:
    """Write a file as Keras 2 does; ``libver="latest"`` makes it several times smaller."""
    weights = formula_weights({name: tuple(v.shape) for name, v in published_names(model).items()})
    if change is not None:
        change(weights)
    codebooks = [name for name in weights if name.endswith("lsh_projections")]
    with h5py.File(path, "w", libver=libver) as file:
        for name, values in weights.items():
            number = f"_{codebooks.index(name)}".removesuffix("_0") if name in codebooks else ""
            file[_published_path(name, number)] = values
    return weights


def _published_path(name: str, number: str) -> str:
    """Place of a weight in the file: a group per layer; below the model's name but for Dense layers."""
    layer, weight = name.split("/")
    graph_layer = re.match(r"cg_(id|reg)_\d+", layer)
    top = graph_layer[0] if graph_layer else layer.split("_dense_")[0]
    top = top if graph_layer or top == "node_encoding" else "output_decoding"
    if "_dense_" in layer:
        return f"{top}/{layer}/{weight}:0"
    inner = f"message_building_layer_lsh{number}" if weight == "lsh_projections" else layer
    return f"{top}/pf_net_dense/{top}/{inner}/{weight}:0"


def all_names(model) -> dict:
    """Published names, and names of our own for weights of parts that no published file has."""
    names = shared_names(model)
    for layer in (*model.cg_id, *model.cg_reg):
        kernel = layer.pair_kernel
        if hasattr(kernel, "ffn_node"):
            names.update(ffn_names(kernel.ffn_node, f"{layer.name}_kernel_node"))
            for weight in ("pair_in", "pair_in_bias", "pair_out", "pair_out_bias"):
                names[f"{layer.name}_kernel/{weight}"] = getattr(kernel, weight)
        for i, message in enumerate(layer.messages):
            prefix = f"{layer.name}_msg_{i}"
            if hasattr(message, "ffn"):
                names.update(ffn_names(message.ffn, prefix))
            else:
                names.update({f"{prefix}/{w}": getattr(message, w) for w in ("w_t", "b_t", "w_h", "theta")})
    return names


def assign_formula_weights(model) -> dict[str, np.ndarray]:
    """Give a model the weights of ``formula_weights``; return them by name."""
    names = all_names(model)
    weights = formula_weights({name: tuple(variable.shape) for name, variable in names.items()})
    for name, variable in names.items():
        variable.assign(weights[name])
    return weights


def formula_events(num_events=2, num_elements=50, num_features=17):
    """Elements of order one from a formula: neither momenta that dwarf the rest nor random numbers."""
    shape = (num_events, num_elements, num_features)
    index = np.arange(np.prod(shape)).reshape(shape)
    X = np.sin(0.37 * index + 0.1 * (index % num_features)).astype(np.float32)
    X[..., 0] = 1 + (index[..., 0] // num_features % 3 == 0)
    X[-1, num_elements - 8 :] = 0
    return X


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def gelu(x):
    from scipy.special import erf

    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def selu(x):
    return 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0)))


ACTIVATIONS = {
    "elu": elu,
    "gelu": gelu,
    "selu": selu,
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "linear": lambda x: x,
}


class NumpyGNN:
    """Forward pass for the options of the published configuration.

    Args:
        weights: name -> array.
        settings: ``bin_size``, ``num_graph_layers_id``, ``num_graph_layers_reg``, ``num_node_messages`` and
            the options named in the methods.
    """

    def __init__(self, weights: dict[str, np.ndarray], settings: dict):
        self.w = {name: np.asarray(value, np.float64) for name, value in weights.items()}
        self.s = settings

    def act(self, part, x):
        """Activation of ``node`` encoding, ``graph``, ``dist``, ``kernel``, ``message`` or ``heads``."""
        default = "gelu" if part == "node" else "elu"
        return ACTIVATIONS[self.s.get("activations", {}).get(part, default)](x)

    def ffn(self, x, prefix, part):
        layers = sum(name.startswith(f"{prefix}_dense_") and name.endswith("kernel") for name in self.w)
        for i in range(layers):
            x = x @ self.w[f"{prefix}_dense_{i}/kernel"] + self.w[f"{prefix}_dense_{i}/bias"]
            x = self.act(part, x) if i < layers - 1 else x
        return x

    def norm(self, x, prefix):
        if f"{prefix}/gamma" not in self.w:
            return x
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return scaled * self.w[f"{prefix}/gamma"] + self.w[f"{prefix}/beta"]

    def bins(self, z, mask, name):
        """Indices of the elements of each bin, [K, S]."""
        size = self.s["bin_size"]
        number = len(z) // size
        u = z @ self.w[f"{name}/lsh_projections"][:, : max(1, number // 2)]
        bucket = np.argmax(np.concatenate([u, -u], axis=-1), axis=-1)
        bucket = np.where(mask, bucket, bucket.max() + 1)
        return np.argsort(bucket, kind="stable").reshape(number, size)

    def graph_layer(self, x, mask, name):
        x = self.norm(x, f"{name}_layernorm1")
        z = self.act("dist", self.ffn(x, f"{name}_ffn_dist", "graph"))
        trainable = f"{name}_kernel/pair_in" in self.w
        out = 0
        for members in self.bins(z, mask, name):
            m, h = mask[members], x[members]
            kernel = self.trainable_kernel(z[members], name) if trainable else self.gaussian(z[members], m)
            for i in range(self.s["num_node_messages"]):
                h = (self.largest if trainable else self.message)(h, kernel, m, f"{name}_msg_{i}")
            out = np.zeros((len(x), h.shape[1])) if np.isscalar(out) else out
            out[members] = h
        return out

    def gaussian(self, z, mask):
        """Kernel [S, S]; ``dist_norm``, ``dist_mult``, ``clip_value_low``."""
        difference = z[:, None] - z[None]
        if self.s.get("dist_norm") == "l1":
            distance = np.abs(difference).sum(-1)
        else:
            distance = np.sqrt((difference**2).sum(-1))
        kernel = np.exp(-self.s.get("dist_mult", 0.1) * np.maximum(distance, 1e-3))
        return np.clip(kernel, self.s.get("clip_value_low", 0.0), 1.0) * mask[:, None] * mask[None]

    def trainable_kernel(self, z, name):
        """Messages [S, S, C] of all pairs, those of padded elements too."""
        n = self.act("kernel", self.ffn(z, f"{name}_kernel_node", "kernel"))
        size = len(n)
        pairs = np.concatenate([np.repeat(n, size, axis=0), np.tile(n, (size, 1))], axis=-1)
        w = {key: self.w[f"{name}_kernel/{key}"] for key in ("pair_in", "pair_in_bias", "pair_out")}
        hidden = self.act("kernel", pairs @ w["pair_in"] + w["pair_in_bias"])
        return (hidden @ w["pair_out"] + self.w[f"{name}_kernel/pair_out_bias"]).reshape(size, size, -1)

    def largest(self, x, kernel, mask, prefix):
        """Message by the largest incoming and outgoing one; only real elements are looked at."""
        real = np.flatnonzero(mask)
        out = np.zeros((len(x), self.w[f"{prefix}_dense_1/bias"].shape[0]))
        for i in real:
            seen = np.concatenate([x[i], kernel[real, i].max(axis=0), kernel[i, real].max(axis=0)])
            out[i] = self.act("message", self.ffn(seen, prefix, "message"))
        return out

    def message(self, x, kernel, mask, prefix):
        w = {key: self.w[f"{prefix}/{key}"] for key in ("w_t", "b_t", "w_h", "theta")}
        m = mask[:, None].astype(float)
        x = x * m
        if self.s.get("normalize_degrees"):
            degree = (np.abs(kernel).sum(-1, keepdims=True) + 1e-6) ** -0.5 * m
            near = degree * (kernel @ (degree * (x @ w["theta"])))
        else:
            near = kernel @ (x @ w["theta"])
        gate = 1 / (1 + np.exp(-(x @ w["w_t"] + w["b_t"])))
        return self.act("message", gate * near + (1 - gate) * (x @ w["w_h"])) * m

    def stack(self, h, encoded, mask, prefix, layers):
        seen = [encoded] if self.s.get("skip_connection") else []
        for i in range(layers):
            update = self.graph_layer(h, mask, f"{prefix}_{i}")
            h = h + update if self.s.get("node_update_mode", "additive") == "additive" else update
            seen.append(h)
        if self.s.get("node_update_mode", "additive") == "additive":
            return h
        return np.concatenate(seen, axis=-1) * mask[:, None]

    def normalized(self, X):
        """Columns by element type, ``statistics`` scale, mean, std [T, F - 1]; as they are without."""
        if "statistics" not in self.s:
            return X[:, 1:]
        kind = X[:, 0].astype(int)
        scale, mean, std = (np.asarray(self.s["statistics"][k])[kind] for k in ("scale", "mean", "std"))
        v = X[:, 1:] / scale
        return np.clip((np.sign(v) * np.log1p(np.abs(v)) - mean) / std, -10, 10)

    def __call__(self, X):
        """Outputs of one event X [N, F]."""
        num, size = len(X), self.s["bin_size"]
        X = np.concatenate([X.astype(np.float64), np.zeros((-num % size, X.shape[1]))])
        mask = X[:, 0] != 0
        encoded = np.concatenate([np.eye(3)[X[:, 0].astype(int)], self.normalized(X)], axis=-1)
        h = encoded
        if "node_encoding_dense_0/kernel" in self.w:
            h = self.act("node", self.ffn(encoded, "node_encoding", "node"))
        h_id = self.stack(h, encoded, mask, "cg_id", self.s["num_graph_layers_id"])
        h_reg = self.stack(h, encoded, mask, "cg_reg", self.s["num_graph_layers_reg"])
        return {name: v[:num] for name, v in self.decode(X, h_id, h_reg, mask[:, None]).items()}

    def decode(self, X, h_id, h_reg, m):
        h_id = self.norm(h_id, "output_layernorm")
        logits = self.head("cls", h_id) * m
        extra = [logits] if self.s.get("regression_use_classification", True) else []
        e1 = np.concatenate([h_id, *extra], axis=-1)
        e2 = np.concatenate([e1, h_reg, *extra], axis=-1)
        phi, pt, energy = self.head("phi", e1), self.head("pt", e2), self.head("energy", e2)
        linear = self.s.get("energy_as_correction") == "linear"
        outputs = {
            "cls": logits,
            "charge": self.head("charge", h_id),
            "pt": pt[:, :1] * X[:, 1:2] + pt[:, 1:] if self.s.get("pt_as_correction") else pt[:, :1],
            "eta": np.clip(X[:, 2:3] + self.head("eta", e1), -7, 7),
            "sin_phi": np.clip(X[:, 3:4] + phi[:, :1], -1, 1),
            "cos_phi": np.clip(X[:, 4:5] + phi[:, 1:], -1, 1),
            "energy": energy[:, :1] * X[:, 5:6] + energy[:, 1:] if linear else X[:, 5:6] + energy,
        }
        outputs |= {name: np.abs(outputs[name]) for name in ("pt", "energy")}
        return {name: value * m for name, value in outputs.items()}

    def head(self, name, x):
        return self.ffn(x, f"ffn_{name}", "heads")
