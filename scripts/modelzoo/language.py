"""Architectures of Hugging Face transformers, made from their config classes: small, real proportions.

Hidden width 128, 4 heads, 2 or 3 layers, MLPs of four times the width (two thirds of that where they are
gated), 200 words, 32 tokens; with a task head where there is one, as a user would have it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import transformers as hf
from torch import Tensor

from modelzoo.entry import Entry, Made
from modelzoo.weights import drawn_quickly

if TYPE_CHECKING:
    from collections.abc import Callable

_WORDS, _TOKENS, _WIDTH, _HEADS, _LAYERS, _CLASSES = 200, 32, 128, 4, 3, 10

_BERT = {
    "vocab_size": _WORDS,
    "hidden_size": _WIDTH,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
    "intermediate_size": 4 * _WIDTH,
    "max_position_embeddings": 2 * _TOKENS,
    "num_labels": _CLASSES,
    "pad_token_id": 0,
}
_LLAMA = {
    "vocab_size": _WORDS,
    "hidden_size": _WIDTH,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
    "num_key_value_heads": 2,
    "head_dim": _WIDTH // _HEADS,
    "intermediate_size": 352,
    "max_position_embeddings": 2 * _TOKENS,
    "use_cache": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_VIT = {
    "hidden_size": _WIDTH,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
    "intermediate_size": 4 * _WIDTH,
    "image_size": 64,
    "patch_size": 16,
    "num_labels": _CLASSES,
}
_SPEECH = {
    "vocab_size": 32,
    "hidden_size": _WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": _HEADS,
    "intermediate_size": 4 * _WIDTH,
    "conv_dim": (64,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "classifier_proj_size": 64,
    "num_labels": _CLASSES,
}
_BART = {
    "vocab_size": _WORDS,
    "d_model": _WIDTH,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": _HEADS,
    "decoder_attention_heads": _HEADS,
    "encoder_ffn_dim": 4 * _WIDTH,
    "decoder_ffn_dim": 4 * _WIDTH,
    "max_position_embeddings": 2 * _TOKENS,
    "use_cache": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
_T5 = {
    "vocab_size": _WORDS,
    "d_model": _WIDTH,
    "d_kv": _WIDTH // _HEADS,
    "d_ff": 4 * _WIDTH,
    "num_layers": 2,
    "num_heads": _HEADS,
    "use_cache": False,
    "decoder_start_token_id": 0,
}


def _words() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {"input_ids": torch.randint(3, _WORDS, (1, _TOKENS), generator=generator)}


def _two_texts() -> dict[str, Tensor]:
    return {**_words(), "decoder_input_ids": _words()["input_ids"][:, : _TOKENS // 2]}


def _image(size: int = 64) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))}


def _wave() -> dict[str, Tensor]:
    return {"input_values": torch.randn(1, 3200, generator=torch.Generator().manual_seed(1))}


def _spectrogram() -> dict[str, Tensor]:
    return {"input_features": torch.randn(1, 80, 64, generator=torch.Generator().manual_seed(1))}


#: Class name -> options of its config, and inputs.
_MODELS: dict[str, tuple[dict[str, Any], Callable[[], dict[str, Tensor]]]] = {
    # Encoders of text.
    "BertForSequenceClassification": (_BERT, _words),
    "BertForMaskedLM": (_BERT, _words),
    "RobertaForSequenceClassification": (_BERT, _words),
    "DistilBertForSequenceClassification": (
        {
            "vocab_size": _WORDS,
            "dim": _WIDTH,
            "n_layers": _LAYERS,
            "n_heads": _HEADS,
            "hidden_dim": 4 * _WIDTH,
            "max_position_embeddings": 2 * _TOKENS,
            "num_labels": _CLASSES,
        },
        _words,
    ),
    "AlbertForSequenceClassification": (_BERT | {"embedding_size": 64}, _words),
    "ElectraForSequenceClassification": (_BERT | {"embedding_size": 64}, _words),
    "DebertaV2ForSequenceClassification": (
        _BERT | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16},
        _words,
    ),
    "ModernBertForSequenceClassification": (
        _BERT
        | {
            "intermediate_size": 192,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "cls_token_id": 1,
            "sep_token_id": 2,
            "local_attention": 16,
        },
        _words,
    ),
    # Decoders of text.
    "GPT2LMHeadModel": (
        {
            "vocab_size": _WORDS,
            "n_embd": _WIDTH,
            "n_layer": _LAYERS,
            "n_head": _HEADS,
            "n_positions": 2 * _TOKENS,
            "use_cache": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        _words,
    ),
    "GPTNeoXForCausalLM": (
        _BERT | {"use_cache": False, "bos_token_id": 1, "eos_token_id": 2},
        _words,
    ),
    "OPTForCausalLM": (
        _BERT | {"ffn_dim": 4 * _WIDTH, "word_embed_proj_dim": _WIDTH, "use_cache": False},
        _words,
    ),
    "LlamaForCausalLM": (_LLAMA, _words),
    "MistralForCausalLM": (_LLAMA | {"sliding_window": 16}, _words),
    "Qwen2ForCausalLM": (_LLAMA, _words),
    "Qwen3ForCausalLM": (_LLAMA, _words),
    "GemmaForCausalLM": (_LLAMA, _words),
    "Phi3ForCausalLM": (_LLAMA, _words),
    # Encoder and decoder.
    "T5ForConditionalGeneration": (_T5, _two_texts),
    "BartForConditionalGeneration": (_BART, _two_texts),
    # Images.
    "ViTForImageClassification": (_VIT, _image),
    "DeiTForImageClassification": (_VIT, _image),
    "BeitForImageClassification": (_VIT | {"use_relative_position_bias": True}, _image),
    "Dinov2ForImageClassification": (_VIT, _image),
    "CLIPVisionModelWithProjection": (_VIT | {"projection_dim": 64}, _image),
    "SiglipForImageClassification": ({"vision_config": _VIT, "num_labels": _CLASSES}, _image),
    "SwinForImageClassification": (
        {
            "image_size": 64,
            "embed_dim": 32,
            "depths": [2, 2, 2],
            "num_heads": [2, 4, 8],
            "window_size": 4,
            "num_labels": _CLASSES,
        },
        _image,
    ),
    "ConvNextForImageClassification": (
        {"hidden_sizes": [32, 64, 128, 256], "depths": [2, 2, 2, 2], "num_labels": _CLASSES},
        _image,
    ),
    "SegformerForSemanticSegmentation": (
        {
            "hidden_sizes": [32, 64, 128, 160],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 4, 5],
            "decoder_hidden_size": 64,
            "num_labels": _CLASSES,
        },
        _image,
    ),
    "MobileViTForImageClassification": ({"image_size": 64, "num_labels": _CLASSES}, _image),
    # Sound.
    "WhisperForAudioClassification": (
        {
            "vocab_size": _WORDS,
            "d_model": _WIDTH,
            "encoder_layers": _LAYERS,
            "encoder_attention_heads": _HEADS,
            "encoder_ffn_dim": 4 * _WIDTH,
            "num_mel_bins": 80,
            "max_source_positions": 32,
            "classifier_proj_size": 64,
            "num_labels": _CLASSES,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
        _spectrogram,
    ),
    "Wav2Vec2ForSequenceClassification": (_SPEECH, _wave),
    "HubertForSequenceClassification": (_SPEECH, _wave),
}


def entries() -> list[Entry]:
    """Text, then images, then sound."""
    return [Entry("transformers", name, partial(_make, name), "transformers") for name in _MODELS]


def _make(name: str) -> Made:
    options, inputs = _MODELS[name]
    kind = getattr(hf, name)
    with drawn_quickly():
        model = kind(kind.config_class(**options)).eval()
    example = inputs()
    size = ", ".join(f"{key} {'x'.join(map(str, value.shape[1:]))}" for key, value in example.items())
    return Made(model, example, size, classes=_last_width(name))


def _last_width(name: str) -> int:
    if name == "CLIPVisionModelWithProjection":
        return 64
    return _WORDS if name.endswith(("LM", "LMHeadModel", "Generation")) else _CLASSES
