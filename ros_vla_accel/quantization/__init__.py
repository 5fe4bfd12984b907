"""DyQ-VLA's execution (arXiv:2603.07904): INT4 weights, activations of 2, 4, 8 or 16 bits.

``quantize_(model)`` packs the linear layers of any torch model in place; ``activation_bits(model,
n)`` sets the width of its next forward pass. Widths 2, 4 and 8 are integer products, 16 is BF16.
On CPUs, 2 and 4 bits take as long as 8: no processor has a faster instruction for them.
"""

from ros_vla_accel.quantization.api import activation_bits, dequantize_, quantize_
from ros_vla_accel.quantization.config import W4AX, WIDTHS
from ros_vla_accel.quantization.latch import ActivationBits
from ros_vla_accel.quantization.linear import W4AXLinear
from ros_vla_accel.quantization.selection import UnsupportedLayerError, default_filter
from ros_vla_accel.quantization.storage import load_quantized, save_quantized
from ros_vla_accel.quantization.summary import Summary, summary

__all__ = [
    "W4AX",
    "WIDTHS",
    "ActivationBits",
    "Summary",
    "UnsupportedLayerError",
    "W4AXLinear",
    "activation_bits",
    "default_filter",
    "dequantize_",
    "load_quantized",
    "quantize_",
    "save_quantized",
    "summary",
]
