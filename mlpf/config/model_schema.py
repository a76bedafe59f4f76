"""Typed model section (``parameters``): every key is a constructor argument of a model or layer.

Key names follow the published configuration of the reference MLPF (Commun. Phys. 7, 124, 2024).
"""

import math
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    model_validator,
)

Activation = Literal["elu", "gelu", "relu", "selu", "silu", "tanh", "linear"]
DropoutRate = Annotated[float, Field(ge=0.0, lt=1.0)]


# Batch lengths are multiples of this. Larger means more padding, smaller means more shapes to compile.
_BUCKET_UNIT = 16
_KERNEL_CLASS, _MESSAGE_CLASS = "kernel class", "message class"


class Section(BaseModel):
    """Base of every section: frozen, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class GaussianKernelConfig(Section):
    """Pair kernel A_ij = max(exp(-dist_mult D_ij), clip_value_low) inside a bin."""

    type: Literal["NodePairGaussianKernel"] = Field("NodePairGaussianKernel", description=_KERNEL_CLASS)
    dist_mult: float = Field(
        0.1, ge=1e-6, allow_inf_nan=False, description="multiplies the distance in the exponent"
    )
    clip_value_low: float = Field(0.0, ge=0.0, lt=1.0, description="smallest value of the kernel")
    exact_diagonal: bool = Field(
        False, description="distance of an element to itself exactly zero, not rounding noise as published"
    )
    dist_norm: Literal["l2", "l1"] = Field(
        "l2",
        description="distance D: l2, or l1 = sum of the absolute differences (not as published)",
    )


class TrainableKernelConfig(Section):
    """Pair kernel of several channels, a network of both elements; needs NodeMessageLearnable."""

    type: Literal["NodePairTrainableKernel"] = Field("NodePairTrainableKernel", description=_KERNEL_CLASS)
    node_dim: PositiveInt = Field(4, description="width of an element in the network of a pair")
    node_hidden_dim: PositiveInt = Field(128, description="hidden width of the network of an element")
    pair_hidden_dim: PositiveInt = Field(32, description="hidden width of the network of a pair")
    num_channels: PositiveInt = Field(4, description="channels: messages of a pair")
    activation: Activation = Field("elu", description="activation of both networks")


class NodeMessageConfig(Section):
    """Gated graph convolution inside a bin; needs NodePairGaussianKernel."""

    type: Literal["GHConvDense"] = Field("GHConvDense", description=_MESSAGE_CLASS)
    output_dim: PositiveInt = Field(256, description="width D of the node features")
    activation: Activation = Field("elu", description="activation of the message")
    normalize_degrees: bool = Field(False, description="divide neighbour sums by the kernel's degree")


class LearnableMessageConfig(Section):
    """Network of an element and its largest incoming and outgoing messages; needs NodePairTrainableKernel."""

    type: Literal["NodeMessageLearnable"] = Field("NodeMessageLearnable", description=_MESSAGE_CLASS)
    output_dim: PositiveInt = Field(256, description="width D of the node features")
    hidden_dim: PositiveInt = Field(128, description="hidden width of the message network")
    num_layers: PositiveInt = Field(1, description="hidden layers of the message network")
    activation: Activation = Field("elu", description="activation of the message")


def _tag(key: str, default: str) -> Discriminator:
    """Select the variant of a section by the value of ``key``. Without the key it is the default variant."""

    def value(data: Any) -> Any:
        return data.get(key, default) if isinstance(data, dict) else getattr(data, key, None)

    return Discriminator(value)


AnyKernelConfig = Annotated[
    Annotated[GaussianKernelConfig, Tag("NodePairGaussianKernel")]
    | Annotated[TrainableKernelConfig, Tag("NodePairTrainableKernel")],
    _tag("type", "NodePairGaussianKernel"),
]
AnyMessageConfig = Annotated[
    Annotated[NodeMessageConfig, Tag("GHConvDense")]
    | Annotated[LearnableMessageConfig, Tag("NodeMessageLearnable")],
    _tag("type", "GHConvDense"),
]
# Kernel -> type of message layer that it works with.
_MESSAGE_OF_KERNEL = {
    "NodePairGaussianKernel": "GHConvDense",
    "NodePairTrainableKernel": "NodeMessageLearnable",
}


class CombinedGraphLayerConfig(Section):
    """Learnable binning followed by message passing inside each bin."""

    bin_size: PositiveInt = Field(256, description="elements per bin S")
    max_num_bins: Annotated[int, Field(ge=2, multiple_of=2)] = Field(200, description="most bins per event")
    distance_dim: PositiveInt = Field(128, description="width of the distance embedding")
    layernorm: bool = Field(True, description="normalise the node features first")
    dropout: DropoutRate = Field(0.0, description="dropout after each message layer")
    dist_activation: Activation = Field("elu", description="activation of the distance embedding")
    ffn_dist_num_layers: PositiveInt = Field(3, description="hidden layers of the distance network")
    ffn_dist_hidden_dim: PositiveInt = Field(64, description="width of the distance network")
    kernel: AnyKernelConfig = Field(GaussianKernelConfig(), description="pair kernel")
    num_node_messages: PositiveInt = Field(2, description="message layers per graph layer")
    node_message: AnyMessageConfig = Field(NodeMessageConfig(), description="message layer")
    activation: Activation = Field("elu", description="activation of the distance network")
    bin_order: Literal["event", "projection"] = Field(
        "event",
        description="order of the elements of one bucket: as in the event (published), or by projection, "
        "so that a bin holds neighbours",
    )
    position_scales: list[PositiveFloat] = Field(
        [],
        description="mm; weigh pairs also by the distance of their positions at the calorimeter face, at "
        "these scales (trained), each for an equal slice of the node features; empty = as published",
    )

    @model_validator(mode="after")
    def _parts_go_together(self) -> "CombinedGraphLayerConfig":
        kernel, message = self.kernel.type, self.node_message.type
        if message != _MESSAGE_OF_KERNEL[kernel]:
            raise ValueError(
                f"kernel.type={kernel} needs node_message.type={_MESSAGE_OF_KERNEL[kernel]}, not {message}; "
                "change one of them"
            )
        if self.position_scales and kernel != "NodePairGaussianKernel":
            raise ValueError(
                f"position_scales multiply a kernel that falls with distance, which {kernel} is not; "
                "leave them out or set kernel.type=NodePairGaussianKernel"
            )
        if self.position_scales and self.node_message.output_dim % len(self.position_scales):
            raise ValueError(
                f"position_scales has {len(self.position_scales)} scales, which do not divide "
                f"node_message.output_dim={self.node_message.output_dim} into equal slices; "
                "change one of them"
            )
        return self


class OutputDecodingConfig(Section):
    """Output heads."""

    activation: Activation = Field("elu", description="activation of the heads")
    regression_use_classification: bool = Field(True, description="feed class logits to the regression heads")
    dropout: DropoutRate = Field(0.1, description="dropout in the heads")
    layernorm: bool = Field(True, description="normalise the classification features first")
    pt_as_correction: Literal[False, True, "exponential"] = Field(
        False, description="pt = |a pt_in + b| instead of |a|, or exponential pt_in exp(a)"
    )
    energy_as_correction: Literal["additive", "linear", "exponential"] = Field(
        "additive", description="energy = |E_in + a|, or linear |a E_in + b|, or exponential E_in exp(a)"
    )
    id_hidden_dim: PositiveInt = Field(128, description="width of the class head")
    charge_hidden_dim: PositiveInt = Field(128, description="width of the charge head")
    pt_hidden_dim: PositiveInt = Field(128, description="width of the pt head")
    eta_hidden_dim: PositiveInt = Field(128, description="width of the eta head")
    phi_hidden_dim: PositiveInt = Field(128, description="width of the phi head")
    energy_hidden_dim: PositiveInt = Field(128, description="width of the energy head")
    id_num_layers: PositiveInt = Field(1, description="hidden layers of the class head")
    charge_num_layers: PositiveInt = Field(1, description="hidden layers of the charge head")
    pt_num_layers: PositiveInt = Field(1, description="hidden layers of the pt head")
    eta_num_layers: PositiveInt = Field(1, description="hidden layers of the eta head")
    phi_num_layers: PositiveInt = Field(1, description="hidden layers of the phi head")
    energy_num_layers: PositiveInt = Field(1, description="hidden layers of the energy head")
    id_dim_decrease: bool = Field(True, description="halve the width after each hidden layer")
    charge_dim_decrease: bool = Field(True, description="halve the width after each hidden layer")
    pt_dim_decrease: bool = Field(True, description="halve the width after each hidden layer")
    eta_dim_decrease: bool = Field(True, description="halve the width after each hidden layer")
    phi_dim_decrease: bool = Field(True, description="halve the width after each hidden layer")
    energy_dim_decrease: bool = Field(True, description="halve the width after each hidden layer")


InputEncodingName = Literal["clic", "clic_helix"]
_ENCODINGS = (
    "clic = one-hot element type and raw columns; clic_helix adds the position at the calorimeter face "
    "(tracks extrapolated along their helix in the magnetic field) and logarithms of the energies"
)


class GNNConfig(Section):
    """PFNetDense: the graph network with learnable binning."""

    model: Literal["gnn_dense"] = Field("gnn_dense", description="model name")
    input_encoding: InputEncodingName = Field("clic", description=_ENCODINGS)
    use_normalizer: bool = Field(
        False, description="standardise inputs per element type with statistics of the train split"
    )
    activation: Activation = Field("gelu", description="activation of the node encoding")
    do_node_encoding: bool = Field(True, description="encode elements before the graph layers")
    node_encoding_hidden_dim: PositiveInt = Field(256, description="width of the node encoding")
    node_update_mode: Literal["additive", "concat"] = Field("additive", description="how layers combine")
    skip_connection: bool = Field(False, description="concat mode: feed the encoded input to the heads too")
    num_graph_layers_id: PositiveInt = Field(6, description="depth: graph layers of the classification stack")
    num_graph_layers_reg: PositiveInt = Field(6, description="depth: graph layers of the regression stack")
    combined_graph_layer: CombinedGraphLayerConfig = Field(
        CombinedGraphLayerConfig(), description="graph layer"
    )
    output_decoding: OutputDecodingConfig = Field(OutputDecodingConfig(), description="output heads")
    gradient_checkpointing: bool = Field(
        False,
        description="compute the graph layers again in the backward pass instead of keeping their "
        "activations: less memory, more time, the same results",
    )

    @model_validator(mode="after")
    def _layers_can_be_combined(self) -> "GNNConfig":
        if self.node_update_mode == "additive" and not self.do_node_encoding:
            raise ValueError(
                "node_update_mode: additive adds layers to encoded elements of the same width; "
                "set do_node_encoding: true or node_update_mode: concat"
            )
        if self.node_update_mode == "additive" and self.skip_connection:
            raise ValueError(
                "skip_connection: true has no effect with node_update_mode: additive; "
                "set it to false or node_update_mode to concat"
            )
        return self

    @property
    def bucket_size(self) -> int:
        """Batches are padded to multiples of this many elements. It divides ``bin_size``."""
        return math.gcd(self.combined_graph_layer.bin_size, _BUCKET_UNIT)

    @property
    def max_num_elements(self) -> int:
        """Maximum number of elements per event: ``bin_size`` times ``max_num_bins``."""
        return self.combined_graph_layer.bin_size * self.combined_graph_layer.max_num_bins


class PerformerBlockConfig(Section):
    """Pre-norm block of linear attention and a feed-forward network."""

    num_heads: PositiveInt = Field(8, description="attention heads H; divides hidden_dim")
    num_features: PositiveInt = Field(64, description="random features M of the attention kernel")
    ffn_dim: PositiveInt = Field(512, description="width of the feed-forward network")
    kernel: Literal["softmax", "elu", "relu"] = Field(
        "softmax", description="attention kernel: softmax by positive features (FAVOR+), elu + 1, or relu"
    )
    activation: Activation = Field("gelu", description="activation of the feed-forward network")
    dropout: DropoutRate = Field(0.0, description="dropout on both updates of the block")
    redraw_interval: NonNegativeInt = Field(
        0, description="training steps between new random features; 0 = keep those of the start"
    )


class TransformerConfig(Section):
    """PFNetTransformer: a Performer with a stream for the classes and one for the regression."""

    model: Literal["transformer"] = Field("transformer", description="model name")
    input_encoding: InputEncodingName = Field("clic", description=_ENCODINGS)
    use_normalizer: bool = Field(
        True, description="standardise inputs per element type with statistics of the train split"
    )
    hidden_dim: PositiveInt = Field(256, description="width D of the elements")
    num_layers_encoder: NonNegativeInt = Field(4, description="depth: blocks before the two streams part")
    num_layers_decoder_id: NonNegativeInt = Field(4, description="depth: blocks of the class stream")
    num_layers_decoder_reg: NonNegativeInt = Field(4, description="depth: blocks of the regression stream")
    streams: Literal["stacks", "queries"] = Field(
        "stacks",
        description="stacks = each stream has its own self-attention blocks; queries = a learned token per "
        "stream gathers a summary of the event, which is added to every element",
    )
    seed: NonNegativeInt = Field(0, description="seed of the random features, independent of setup.seed")
    bucket_size: PositiveInt = Field(
        _BUCKET_UNIT, description="batches are padded to multiples of this many elements"
    )
    block: PerformerBlockConfig = Field(PerformerBlockConfig(), description="one block")
    output_decoding: OutputDecodingConfig = Field(OutputDecodingConfig(), description="output heads")
    gradient_checkpointing: bool = Field(
        False,
        description="compute the blocks again in the backward pass instead of keeping their activations: "
        "less memory, more time, the same results",
    )

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> "TransformerConfig":
        if self.hidden_dim % self.block.num_heads:
            raise ValueError(
                f"block.num_heads={self.block.num_heads} does not divide hidden_dim={self.hidden_dim}; "
                "change one of them"
            )
        return self

    @property
    def max_num_elements(self) -> None:
        """None: there is no maximum number of elements."""
        return


ModelConfig = GNNConfig | TransformerConfig
MODEL_CONFIGS: dict[str, type[GNNConfig] | type[TransformerConfig]] = {
    "gnn_dense": GNNConfig,
    "transformer": TransformerConfig,
}


# Section ``parameters`` of a file: ``model`` selects the keys. Without it, it is the graph network.
AnyModelConfig = Annotated[
    Annotated[GNNConfig, Tag("gnn_dense")] | Annotated[TransformerConfig, Tag("transformer")],
    _tag("model", "gnn_dense"),
]

# Key of a section with variants -> name of the variant -> its section. The first variant is the default.
VARIANTS: dict[str, dict[str, type[Section]]] = {
    "parameters": dict(MODEL_CONFIGS),
    "kernel": {
        "NodePairGaussianKernel": GaussianKernelConfig,
        "NodePairTrainableKernel": TrainableKernelConfig,
    },
    "node_message": {"GHConvDense": NodeMessageConfig, "NodeMessageLearnable": LearnableMessageConfig},
}
# Key that names the variant. In sections that are not listed it is ``type``.
VARIANT_KEYS = {"parameters": "model"}
