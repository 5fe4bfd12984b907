"""DyQ-VLA's decision: the robot's motion sets the activation width (arXiv:2603.07904)."""

from ros_vla_accel.precision.calibration import Calibration as Calibration
from ros_vla_accel.precision.calibration import CalibrationError as CalibrationError
from ros_vla_accel.precision.config import PrecisionConfig as PrecisionConfig
from ros_vla_accel.precision.controller import PrecisionController as PrecisionController
from ros_vla_accel.precision.controller import PrecisionDecision as PrecisionDecision
from ros_vla_accel.precision.motion_precision import MotionPrecision as MotionPrecision
