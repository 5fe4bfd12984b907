"""Chooses the middleware for all tests, and keeps DDS on this machine."""

from __future__ import annotations

import os

os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two cores, and most tests are small

from ros_vla_accel import middleware

middleware.install()
