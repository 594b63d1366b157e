# SPDX-License-Identifier: Apache-2.0
"""Handler of requests for Inference Endpoints, copied beside published weights; it works without `musiq_hf`.

A request is `{"inputs": picture or list of pictures, "parameters": {...}}`. A picture is the bytes of a file, in
base64 where the request is JSON. It may be a PIL image, which a server makes of a body that is a picture. No text is
ever taken for a path or a URL. Each picture is answered as by the pipeline "image-quality-assessment", with
{"score": ...}, or with {"error": ...} in its place. Parameters are `percentile`, and `max_megapixels`, which lowers
the limit.
"""

import base64
import binascii
import os
from io import BytesIO
from typing import Any

import torch
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, AutoModel, PreTrainedConfig, pipeline

TASK = "image-quality-assessment"
HEAD = "ForImageQualityAssessment"  # end of the names of classes with a quality head
MAX_PICTURES = 64  # of a request
# Limits that variables of the environment change: of all pictures of a request as files, and of a picture.
MAX_BYTES = int(float(os.environ.get("MUSIQ_MAX_MEGABYTES", "32")) * 1e6)
MAX_MEGAPIXELS = float(os.environ.get("MUSIQ_MAX_MEGAPIXELS", "35"))

Answer = dict[str, Any]


class EndpointHandler:
    """Handler of requests, which are answered on a GPU if there is one.

    Args:
        path: Folder of the checkpoint.

    Raises:
        ValueError: If the checkpoint has no quality head.
    """

    def __init__(self, path: str = ""):
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        options: dict[str, Any] = {"device": accelerator or torch.device("cpu"), "trust_remote_code": True}
        config, _ = PreTrainedConfig.get_config_dict(path)
        architecture = (config.get("architectures") or [""])[0]
        if not architecture.endswith(HEAD):
            raise ValueError(
                f"A checkpoint with a quality head is needed, got {architecture or 'none'}. Fine-tune it."
            )
        has_pipeline = TASK in config.get("custom_pipelines", {})
        self._score = pipeline(TASK, model=path, **options) if has_pipeline else _PlainScorer(path, **options)
        self._parameters = {"max_megapixels", "percentile"} if has_pipeline else {"max_megapixels"}

    def __call__(self, data: dict[str, Any]) -> Answer | list[Answer]:
        """Answer a request; a mistake in it is one {"error": ...} for all."""
        try:
            pictures, settings = self._read_request(data)
        except ValueError as error:
            return {"error": str(error)}
        answers = [self._answer(picture, settings) for picture in pictures]
        return answers if isinstance(data["inputs"], list) else answers[0]

    def _read_request(self, data: Any) -> tuple[list[Any], dict[str, Any]]:
        """Return the pictures of a request and the settings of their scores.

        Raises:
            ValueError: If the request has no pictures, too many, or parameters that do not exist.
        """
        if not isinstance(data, dict) or "inputs" not in data:
            raise ValueError('A request needs "inputs": a picture in base64, or a list of them.')
        inputs = data["inputs"]
        pictures = inputs if isinstance(inputs, list) else [inputs]
        if len(pictures) > MAX_PICTURES:
            raise ValueError(f"A request has at most {MAX_PICTURES} pictures, got {len(pictures)}. Send several.")
        size = sum(map(_count_bytes, pictures))
        if size > MAX_BYTES:
            raise ValueError(f"The pictures of a request have at most {MAX_BYTES:,} bytes, got {size:,}. Send fewer.")
        return pictures, self._read_parameters(data.get("parameters") or {})

    def _read_parameters(self, parameters: Any) -> dict[str, Any]:
        known = ", ".join(sorted(self._parameters))
        if not isinstance(parameters, dict) or not parameters.keys() <= self._parameters:
            raise ValueError(
                f'"parameters" of this checkpoint are {known}, got {parameters!r:.200}. Leave out others.'
            )
        limit = parameters.get("max_megapixels", MAX_MEGAPIXELS)
        if not isinstance(limit, int | float) or isinstance(limit, bool) or not limit > 0:
            raise ValueError(f'"max_megapixels" must be a positive number, got {limit!r:.200}.')
        percentile = parameters.get("percentile", False)
        if not isinstance(percentile, bool):
            raise ValueError(f'"percentile" must be true or false, got {percentile!r:.200}.')
        settings: dict[str, Any] = {"max_megapixels": min(float(limit), MAX_MEGAPIXELS)}
        return settings | ({"percentile": True} if percentile else {})

    def _answer(self, picture: Any, settings: dict[str, Any]) -> Answer:
        """Score one picture, or say why that is not possible."""
        try:
            answer: Answer = self._score(_open(picture), **settings)
        except ValueError as error:
            return {"error": str(error)}
        except Exception as error:  # of whatever kind: a server answers, and its other pictures are scored
            return {"error": f"The picture cannot be scored ({type(error).__name__}: {error})."}
        return answer


class _PlainScorer:
    """Function from a picture to its score, for families whose files hold no pipeline.

    RGB and gray pictures of 8 bits are read as `musiq_hf` does; the image processor refuses others.
    """

    def __init__(self, path: str, *, device: torch.device, trust_remote_code: bool):
        self.processor = AutoImageProcessor.from_pretrained(path, trust_remote_code=trust_remote_code)
        self.model = AutoModel.from_pretrained(path, trust_remote_code=trust_remote_code).to(device).eval()

    def __call__(self, picture: bytes | Image.Image, *, max_megapixels: float) -> Answer:
        image = Image.open(BytesIO(picture)) if isinstance(picture, bytes) else picture
        if image.width * image.height > max_megapixels * 1e6:
            raise ValueError(
                f"A picture has at most {max_megapixels:g} megapixels, got {image.width} x {image.height} pixels. "
                "Shrink it first."
            )
        batch = self.processor(ImageOps.exif_transpose(image), return_tensors="pt").to(self.model.device)
        with torch.inference_mode():
            return {"score": float(self.model(**batch).scores[0])}


def _count_bytes(picture: Any) -> int:
    """Return the bytes of a picture as a file; 0 for what is none."""
    if isinstance(picture, str):
        return len(picture) * 3 // 4
    return len(picture) if isinstance(picture, bytes | bytearray) else 0


def _open(picture: Any) -> bytes | Image.Image:
    """Return the bytes of a picture, or a PIL image as it is.

    Raises:
        ValueError: If the picture is neither, or its base64 is damaged.
    """
    if isinstance(picture, Image.Image):
        return picture
    if isinstance(picture, bytes | bytearray):
        return bytes(picture)
    if not isinstance(picture, str):
        raise ValueError(f"A picture must be bytes, or text in base64, got {type(picture).__name__}.")
    body = picture.partition(",")[2] if picture.startswith("data:") else picture
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(
            "A picture must be bytes, or text in base64; this text is not. Paths and URLs are not read."
        ) from error
