# SPDX-License-Identifier: Apache-2.0
"""Calibration of scores, for every family; it goes to the Hub with the pipeline, which answers percentiles too."""

from .musiq.pipeline_musiq import CALIBRATION, CheckpointCalibration, load_calibration

__all__ = ["CALIBRATION", "CheckpointCalibration", "load_calibration"]
