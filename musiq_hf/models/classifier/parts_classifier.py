# SPDX-License-Identifier: Apache-2.0
"""Configurations of networks of Transformers that are parts of a model.

Some families have this file under their own name.
"""

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from .settings_classifier import check_sizes

# Far above every network that was trained. A damaged file names sizes that fill any memory, or take hours.
LARGEST_OF_PARTS = {
    "hidden_size": 2**16,
    "num_hidden_layers": 2**10,
    "num_attention_heads": 2**10,
    "intermediate_size": 2**18,
    "image_size": 2**13,
    "patch_size": 2**10,
    "embedding_size": 2**16,
    "hidden_sizes": 2**16,
    "depths": 2**10,
}
# Fields of a part on which no score depends.
NOTES = {
    "architectures",
    "chunk_size_feed_forward",
    "dtype",
    "id2label",
    "is_encoder_decoder",
    "label2id",
    "name_or_path",
    "_commit_hash",
    "_name_or_path",
    "out_indices",  # follow from the names of the stages
    "output_attentions",
    "output_hidden_states",
    "problem_type",
    "return_dict",
    "stage_names",
    "torch_dtype",
    "transformers_version",
}


def make_part(name: str, value: Any, default: PreTrainedConfig) -> PreTrainedConfig:
    """Return the configuration of a part, of which a dictionary may be given, or the default for None.

    Raises:
        ValueError: If Transformers knows no such model, or a size is out of any measure.
    """
    if value is None:
        return default
    if isinstance(value, dict):
        fields = {key: item for key, item in value.items() if key != "model_type"}
        try:
            value = AutoConfig.for_model(value.get("model_type"), **fields)
        except Exception as error:  # its fields are checked by many classes, in many ways
            reason = str(error).strip().split("\n")[0]
            raise ValueError(f"`{name}` is no configuration that Transformers can read: {reason[:200]}") from error
    check_sizes({size: getattr(value, size, None) for size in LARGEST_OF_PARTS}, LARGEST_OF_PARTS, name=f"{name}.{{}}")
    value.dtype = None  # the whole model has one type
    return value


def describe_part(config: PreTrainedConfig) -> dict[str, Any]:
    """Return the fields of a part's configuration that can change a score and differ from the defaults, sorted."""
    return {name: value for name, value in sorted(config.to_diff_dict().items()) if name not in NOTES}


__all__ = ["NOTES", "describe_part", "make_part"]
