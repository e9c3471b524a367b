"""One or two small models of every module of timm, at least one of each kind of block that a module has."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import timm
import torch

from modelzoo.entry import Entry, Made
from modelzoo.weights import drawn_quickly

#: By module of timm: the smallest of its architectures, and more where a module holds several. Images have 64
#: by 64 pixels; ``@96`` says another size, ``=96`` one that the model has to be told as ``img_size``.
MODELS = {
    "beit": "beit_base_patch16_224=64",
    "byoanet": "eca_botnext26ts_256=64 eca_halonext26ts@256 lambda_resnet26t",
    "byobnet": "repvgg_a0 mobileone_s1 gcresnext26ts bat_resnext26ts@256",
    "cait": "cait_xxs24_224=64",
    "coat": "coat_tiny=64 coat_lite_tiny=64",
    "convit": "convit_tiny=64",
    "convmixer": "convmixer_768_32",
    "convnext": "convnext_atto convnextv2_atto convnext_zepto_rms",
    "cpubone": "cpubone_nano",
    "crossvit": "crossvit_tiny_240",
    "csatv2": "csatv2",
    "cspnet": "cs3darknet_s cspresnet50",
    "cspnext": "cspnext_tiny",
    "davit": "davit_tiny",
    "deepseek_vit": "deepseek_vit_412m@112",
    "deit": "deit_tiny_patch16_224=64 deit_tiny_distilled_patch16_224=64",
    "densenet": "densenet121 densenetblur121d",
    "dla": "dla46_c dla60_res2net",
    "dpn": "dpn48b",
    "edgenext": "edgenext_xx_small",
    "efficientformer": "efficientformer_l1@224",
    "efficientformer_v2": "efficientformerv2_s0=64",
    "efficientnet": "efficientnet_b0 mixnet_s efficientnet_b0_gn",
    "efficientvim": "efficientvim_m1",
    "efficientvit_mit": "efficientvit_b0",
    "efficientvit_msra": "efficientvit_m0",
    "eva": "eva02_tiny_patch14_224=56 vit_small_patch16_rope_224=64",
    "fasternet": "fasternet_t0",
    "fastvit": "fastvit_t8",
    "focalnet": "focalnet_tiny_srf",
    "gcvit": "gcvit_xxtiny=64",
    "gemma4_vit": "gemma4_vit_167m",
    "ghostnet": "ghostnet_050 ghostnetv2_100 ghostnetv3_050",
    "hardcorenas": "hardcorenas_a",
    "hgnet": "hgnetv2_b0",
    "hiera": "hiera_tiny_224=64",
    "hieradet_sam2": "hieradet_small",
    "hrnet": "hrnet_w18_small",
    "iformer": "iformer_t",
    "inception_next": "inception_next_atto",
    "inception_resnet_v2": "inception_resnet_v2@96",
    "inception_v3": "inception_v3@96",
    "inception_v4": "inception_v4@96",
    "lcnetv2": "lcnetv2_small",
    "levit": "levit_128s=64 levit_conv_128s=64",
    "lowformer": "lowformer_b0",
    "mambaout": "mambaout_femto",
    "maxxvit": "coatnet_pico_rw_224=64 maxvit_pico_rw_256=64 maxxvit_rmlp_nano_rw_256=64",
    "metaformer": "poolformer_s12 caformer_s18",
    "mlp_mixer": "gmlp_ti16_224=64 gmixer_12_224=64 resmlp_12_224=64 mixer_s32_224=64",
    "mobilenetv3": "mobilenetv3_small_050 mobilenetv4_conv_small_035 mobilenetv4_hybrid_medium_075",
    "mobilenetv5": "mobilenetv5_base",
    "mobilevit": "mobilevit_xxs mobilevitv2_050",
    "mvitv2": "mvitv2_tiny",
    "naflexvit": "naflexvit_base_patch16_gap",
    "nasnet": "nasnetalarge",
    "nest": "nest_tiny=64",
    "nextvit": "nextvit_small",
    "nfnet": "nf_regnet_b0 eca_nfnet_l0",
    "pit": "pit_ti_224=64 pit_ti_distilled_224=64",
    "pnasnet": "pnasnet5large",
    "pvt_v2": "pvt_v2_b0 pvt_v2_b2_li",
    "qwen3_vit": "qwen3_vit_88m",
    "rdnet": "rdnet_tiny",
    "regnet": "regnetx_002 regnetz_005",
    "repghost": "repghostnet_050",
    "repvit": "repvit_m0_9",
    "res2net": "res2net50_14w_8s",
    "resnest": "resnest14d",
    "resnet": "resnet10t resnet50_gn seresnext26d_32x4d",
    "resnetv2": "resnetv2_18 resnetv2_50x1_bit",
    "rexnet": "rexnet_100",
    "selecsls": "selecsls42",
    "senet": "legacy_seresnet18",
    "sequencer": "sequencer2d_s",
    "shvit": "shvit_s1",
    "sknet": "skresnet18",
    "starnet": "starnet_s050",
    "swiftformer": "swiftformer_xs",
    "swin_transformer": "swin_tiny_patch4_window7_224=64",
    "swin_transformer_v2": "swinv2_tiny_window8_256=64",
    "swin_transformer_v2_cr": "swinv2_cr_tiny_224=64",
    "tiny_vit": "tiny_vit_5m_224",
    "tnt": "tnt_s_patch16_224=64",
    "tresnet": "tresnet_m",
    "twins": "twins_svt_small twins_pcpvt_small",
    "vgg": "vgg11",
    "visformer": "visformer_tiny=64",
    "vision_transformer": "vit_tiny_patch16_224=64 vit_wee_patch16_reg1_gap_256=64 "
    "vit_small_patch16_18x2_224=64",
    "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224=64",
    "vision_transformer_relpos": "vit_relpos_small_patch16_224=64 vit_srelpos_small_patch16_224=64",
    "vision_transformer_sam": "samvit_base_patch16_224",
    "vitamin": "vitamin_small_224=64",
    "volo": "volo_d1_224=64",
    "vovnet": "ese_vovnet19b_slim_dw",
    "xception": "xception",
    "xception_aligned": "xception41",
    "xcit": "xcit_nano_12_p16_224",
}

_USUAL = 64


def entries() -> list[Entry]:
    """All models, by module."""
    return [_entry(module, word) for module, words in MODELS.items() for word in words.split()]


def missing_modules() -> set[str]:
    """Modules of the installed timm of which no model is listed."""
    return set(timm.list_modules()) - set(MODELS)


def _entry(module: str, word: str) -> Entry:
    found = re.fullmatch(r"(\w+?)(?:([@=])(\d+))?", word)
    assert found is not None, word
    name, sign, pixels = found.groups()
    return Entry("timm", name, partial(_make, name, int(pixels or _USUAL), told=sign == "="), module)


def _make(name: str, size: int, *, told: bool) -> Made:
    options: dict[str, Any] = {"img_size": size} if told else {}
    with drawn_quickly():
        model = timm.create_model(name, pretrained=False, num_classes=1000, **options)
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    return Made(model.eval(), image, f"{size} px")
