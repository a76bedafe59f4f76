"""The published graph network once more, in NumPy and float64, from its formulas; independent of Keras.

One event at a time, plain loops over bins: to be read and compared with, not to be fast.
"""

from pathlib import Path

import h5py
import numpy as np

from mlpf.models.published_weights import published_names


def formula_weights(names_and_shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Weights from a formula of the position of each weight: no seed, no random numbers."""
    weights = {}
    for number, (name, shape) in enumerate(sorted(names_and_shapes.items())):
        flat = np.sin(1.7 * number + 12.9898 * np.arange(1, np.prod(shape) + 1) ** 1.1)
        values = flat.reshape(shape) / np.sqrt(shape[0])
        weights[name] = (1.0 + 0.1 * values if name.endswith("gamma") else values).astype(np.float32)
    return weights


def write_published(path: Path, model, change=None) -> dict[str, np.ndarray]:
    """Write a file as Keras 2 does: one group per layer, the codebook in a group with a running number."""
    weights = formula_weights({name: tuple(v.shape) for name, v in published_names(model).items()})
    if change is not None:
        change(weights)
    with h5py.File(path, "w") as file:
        for number, (name, values) in enumerate(weights.items()):
            layer, weight = name.split("/")
            inner = f"pf_net_dense/message_building_layer_lsh_{number}" if "lsh" in weight else layer
            file[f"{layer}/{inner}/{weight}:0"] = values
    return weights


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def gelu(x):
    from scipy.special import erf

    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def linear(x):
    return x


class NumpyGNN:
    """Forward pass for the options of the published configuration.

    Args:
        weights: published name -> array.
        settings: ``bin_size``, ``num_graph_layers_id``, ``num_graph_layers_reg``, ``num_node_messages`` and
            the options named in the methods.
    """

    def __init__(self, weights: dict[str, np.ndarray], settings: dict):
        self.w = {name: np.asarray(value, np.float64) for name, value in weights.items()}
        self.s = settings

    def ffn(self, x, prefix, activation=elu):
        layers = sum(name.startswith(f"{prefix}_dense_") and name.endswith("kernel") for name in self.w)
        for i in range(layers):
            x = x @ self.w[f"{prefix}_dense_{i}/kernel"] + self.w[f"{prefix}_dense_{i}/bias"]
            x = activation(x) if i < layers - 1 else x
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
        z = elu(self.ffn(x, f"{name}_ffn_dist"))
        out = np.zeros((len(x), self.w[f"{name}_msg_0/w_t"].shape[1]))
        for members in self.bins(z, mask, name):
            m = mask[members].astype(float)
            zb = z[members] * m[:, None]
            square = ((zb[:, None] - zb[None]) ** 2).sum(-1)
            kernel = np.exp(-self.s.get("dist_mult", 0.1) * np.sqrt(np.maximum(square, 1e-6)))
            kernel = np.clip(kernel, self.s.get("clip_value_low", 0.0), 1.0) * m[:, None] * m[None]
            h = x[members]
            for i in range(self.s["num_node_messages"]):
                h = self.message(h, kernel, m[:, None], f"{name}_msg_{i}")
            out[members] = h
        return out

    def message(self, x, kernel, m, prefix):
        w = {key: self.w[f"{prefix}/{key}"] for key in ("w_t", "b_t", "w_h", "theta")}
        x = x * m
        if self.s.get("normalize_degrees"):
            degree = (np.abs(kernel).sum(-1, keepdims=True) + 1e-6) ** -0.5 * m
            near = degree * (kernel @ (degree * (x @ w["theta"])))
        else:
            near = kernel @ (x @ w["theta"])
        gate = 1 / (1 + np.exp(-(x @ w["w_t"] + w["b_t"])))
        return elu(gate * near + (1 - gate) * (x @ w["w_h"])) * m

    def stack(self, h, encoded, mask, prefix, layers):
        seen = [encoded] if self.s.get("skip_connection") else []
        for i in range(layers):
            update = self.graph_layer(h, mask, f"{prefix}_{i}")
            h = h + update if self.s.get("node_update_mode", "additive") == "additive" else update
            seen.append(h)
        if self.s.get("node_update_mode", "additive") == "additive":
            return h
        return np.concatenate(seen, axis=-1) * mask[:, None]

    def __call__(self, X):
        """Outputs of one event X [N, F]."""
        num, size = len(X), self.s["bin_size"]
        X = np.concatenate([X.astype(np.float64), np.zeros((-num % size, X.shape[1]))])
        mask = X[:, 0] != 0
        encoded = np.concatenate([np.eye(3)[X[:, 0].astype(int)], X[:, 1:]], axis=-1)
        h = encoded
        if "node_encoding_dense_0/kernel" in self.w:
            h = gelu(self.ffn(encoded, "node_encoding", gelu))
        h_id = self.stack(h, encoded, mask, "cg_id", self.s["num_graph_layers_id"])
        h_reg = self.stack(h, encoded, mask, "cg_reg", self.s["num_graph_layers_reg"])
        return {name: v[:num] for name, v in self.decode(X, h_id, h_reg, mask[:, None]).items()}

    def decode(self, X, h_id, h_reg, m):
        h_id = self.norm(h_id, "output_layernorm")
        logits = self.ffn(h_id, "ffn_cls") * m
        extra = [logits] if self.s.get("regression_use_classification", True) else []
        e1 = np.concatenate([h_id, *extra], axis=-1)
        e2 = np.concatenate([e1, h_reg, *extra], axis=-1)
        phi, pt = self.ffn(e1, "ffn_phi"), self.ffn(e2, "ffn_pt")
        corrected = np.abs(pt[:, :1] * X[:, 1:2] + pt[:, 1:])
        outputs = {
            "cls": logits,
            "charge": self.ffn(h_id, "ffn_charge"),
            "pt": corrected if self.s.get("pt_as_correction") else np.abs(pt[:, :1]),
            "eta": np.clip(X[:, 2:3] + self.ffn(e1, "ffn_eta"), -7, 7),
            "sin_phi": np.clip(X[:, 3:4] + phi[:, :1], -1, 1),
            "cos_phi": np.clip(X[:, 4:5] + phi[:, 1:], -1, 1),
            "energy": np.abs(X[:, 5:6] + self.ffn(e2, "ffn_energy")),
        }
        return {name: value * m for name, value in outputs.items()}
