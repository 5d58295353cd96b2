"""The ONNX graph of MiniLM (a BERT of 6 layers) with 8-bit weights, built straight from its safetensors file.

The operators are onnxruntime's fused ones, which its optimizer would make of the plain graph: built so, neither torch
nor `onnx` is needed. Knows the architecture, not where weights come from.
"""

import json
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from adlatus.backends.embeddings.onnx_file import Graph, TensorType

LAYERS, HEADS, DIMENSIONS = 6, 12, 384
EPSILON = 1e-12
STEPS = 63
"""Weights are -63 to 63, 7 bits: with 8, processors without VNNI overflow where they add two products in 16 bits.
Unsigned weights would not, and take twice the time on those with VNNI."""

Weights = Mapping[str, npt.NDArray[np.float32]]


def read_safetensors(content: bytes) -> Weights:
    """The float tensors of a safetensors file by name, without copying them."""
    start = 8 + int.from_bytes(content[:8], "little")
    described = json.loads(content[8:start])
    tensors = {name: tensor for name, tensor in described.items() if tensor.get("dtype") == "F32"}
    weights = {}
    for name, tensor in tensors.items():
        begin, end = tensor["data_offsets"]
        values = np.frombuffer(content, "<f4", count=(end - begin) // 4, offset=start + begin)
        weights[name] = values.reshape(tensor["shape"])
    return weights


def build(weights: Weights) -> bytes:
    """The ONNX file: the ids of one text's tokens in, its vector of length 1 out, the mean of all its tokens.

    There is no padding: steps of activations are as large as the largest value needs, so texts that are computed
    together would change one another's vectors.
    """
    graph = Graph(
        "minilm",
        inputs={"input_ids": ("int32", [1, "length"])},
        outputs={"embedding": ("float32", [1, DIMENSIONS])},
    )
    hidden = _embedded(graph, weights)
    for layer in range(LAYERS):
        hidden = _layer(graph, weights, f"encoder.layer.{layer}.", hidden)
    _pool(graph, hidden)
    return graph.to_bytes()


def _embedded(graph: Graph, weights: Weights) -> str:
    """Words and positions. All tokens are of the first segment, so its vector is a part of every position's."""
    words, scales = _quantized(weights["embeddings.word_embeddings.weight"].T)
    rows = graph.add("Gather", [graph.constant("words", words.T), "input_ids"])
    row_scales = graph.add("Gather", [graph.constant("word_scales", scales[:, None]), "input_ids"])
    word = graph.add("Mul", [graph.add("Cast", [rows], to=TensorType.FLOAT32), row_scales])
    zero, one = (graph.constant(f"int_{number}", np.array(number, np.int64)) for number in (0, 1))
    length = graph.add("Gather", [graph.add("Shape", ["input_ids"]), one])
    places = graph.add("Range", [zero, length, one])
    positions = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    position = graph.add("Gather", [graph.constant("positions", positions), places])
    norm = _constants(graph, weights, "embeddings.LayerNorm.", "weight", "bias")
    return graph.add("LayerNormalization", [graph.add("Add", [word, position]), *norm], axis=-1, epsilon=EPSILON)


def _layer(graph: Graph, weights: Weights, prefix: str, hidden: str) -> str:
    attended = _attention(graph, weights, prefix + "attention.self.", hidden)
    linear = _linear(graph, weights, prefix + "attention.output.dense.", attended)
    hidden = _added(graph, weights, prefix + "attention.output.", linear, hidden)
    inner = _linear(graph, weights, prefix + "intermediate.dense.", hidden)
    bias = _constants(graph, weights, prefix + "intermediate.dense.", "bias")
    linear = _linear(graph, weights, prefix + "output.dense.", graph.add("Microsoft.BiasGelu", [inner, *bias]))
    return _added(graph, weights, prefix + "output.", linear, hidden)


def _attention(graph: Graph, weights: Weights, prefix: str, hidden: str) -> str:
    parts = ("query", "key", "value")
    stored, scales = _quantized(np.concatenate([weights[f"{prefix}{part}.weight"] for part in parts]).T)
    bias = np.concatenate([weights[f"{prefix}{part}.bias"] for part in parts])
    steps, step, zero_point = (prefix + name for name in ("steps", "step", "zero_point"))
    graph.add("DynamicQuantizeLinear", [hidden], [steps, step, zero_point])
    weight, weight_scales = graph.constant(prefix + "weight", stored), graph.constant(prefix + "scales", scales)
    no_mask = ""
    inputs = [steps, weight, graph.constant(prefix + "bias", bias), step, weight_scales, no_mask, zero_point]
    return graph.add("Microsoft.QAttention", inputs, num_heads=HEADS)


def _linear(graph: Graph, weights: Weights, prefix: str, hidden: str) -> str:
    """The product with a matrix of 8 bits, without its bias, which the next operator adds."""
    stored, scales = _quantized(weights[prefix + "weight"].T)
    matrix = graph.constant(prefix + "weight", stored), graph.constant(prefix + "scales", scales)
    return graph.add("Microsoft.DynamicQuantizeMatMul", [hidden, *matrix])


def _added(graph: Graph, weights: Weights, prefix: str, linear: str, hidden: str) -> str:
    """A residual connection and its normalisation."""
    norm = _constants(graph, weights, prefix + "LayerNorm.", "weight", "bias")
    bias = _constants(graph, weights, prefix + "dense.", "bias")
    return graph.add("Microsoft.SkipLayerNormalization", [linear, hidden, *norm, *bias], epsilon=EPSILON)


def _pool(graph: Graph, hidden: str) -> None:
    mean = graph.add("ReduceMean", [hidden], axes=[1], keepdims=0)
    graph.add("LpNormalization", [mean], ["embedding"], axis=-1, p=2)


def _constants(graph: Graph, weights: Weights, prefix: str, *names: str) -> list[str]:
    return [graph.constant(prefix + name, weights[prefix + name]) for name in names]


def _quantized(matrix: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Each column in whole steps, and how large its steps are."""
    scales = np.maximum(np.abs(matrix).max(axis=0), 1e-9).astype(np.float32) / STEPS
    return np.rint(matrix / scales).astype(np.int8), scales
