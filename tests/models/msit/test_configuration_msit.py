# SPDX-License-Identifier: Apache-2.0
import pytest

from musiq_hf.models.msit import MSIT, MsitConfig


def test_a_file_gives_the_configuration_back(tmp_path):
    for fields in ({}, {"decoder_hidden_sizes": (8, 9), "position_encoding_scale": None, "encoder_type": "rdn"}):
        config = MsitConfig(**fields)
        config.save_pretrained(tmp_path)
        again = MsitConfig.from_pretrained(tmp_path)
        assert again.to_dict() == config.to_dict() | {"transformers_version": again.transformers_version}
        assert again.architectures == ["MsitForImageSuperResolution"]
    assert MsitConfig().decoder_input_size == 12_546


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 250}, "`hidden_size` must be a multiple of `num_kernels`, got 250 and 16"),
        ({"num_attention_heads": 3}, "multiple of `num_attention_heads`, got 256 and 3"),
        ({"num_attention_kernels": 5}, "multiple of `num_attention_kernels`"),
        ({"hidden_size": 12, "num_kernels": 4, "num_attention_heads": 4}, "multiple of 8 with `use_shift`, got 12"),
        ({"decoder_hidden_sizes": []}, "at least one layer"),
        ({"decoder_hidden_sizes": [0]}, "`decoder_hidden_sizes` must be at least 1"),
        ({"window_radius": -1}, "`window_radius` must lie between 0 and 16, got -1"),
        ({"position_encoding_size": 10}, "multiple of 4 and at least 8, got 10"),
        ({"position_encoding_size": 4}, "multiple of 4 and at least 8, got 4"),
        ({"position_encoding_scale": 20}, "must lie between 0 and 16, got 20"),
        ({"encoder_type": "swin"}, "`encoder_type` must be 'edsr' or 'rdn', got 'swin'"),
        ({"use_rims": True}, "Is it `use_rim`"),
    ],
)
def test_fields_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        MsitConfig.from_dict(fields)


def test_fields_that_nothing_reads_are_not_checked_and_not_in_the_signature():
    config = MsitConfig(use_local_attention=False, use_shift=False, hidden_size=12, num_kernels=4)
    unread = {"num_attention_heads", "window_radius", "shift_padding", "encoder_growth", "position_encoding_scale"}
    assert (
        not unread & config.signature_fields().keys()
        and unread < MsitConfig(encoder_type="rdn").signature_fields().keys()
    )


def test_card_and_facts_say_what_a_configuration_means():
    config = MsitConfig(encoder_type="rdn", use_rim=False)
    text, facts = MSIT.card(config), MSIT.facts(config)
    assert "RDN of 16 blocks and 64 channels" in text.summary and "no evidence" in text.limits
    assert facts["reads"] == "7 x 7 source pixels for each target pixel by 8 heads" and facts["kernels"] == "plain"
    assert "modulated" in MSIT.facts(MsitConfig())["kernels"]
