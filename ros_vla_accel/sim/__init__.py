"""The simulated Sawyer arm: Meta-World without ROS, and the same as a ROS 2 robot."""

import ctypes.util
import os

# MuJoCo reads MUJOCO_GL once, at its import. EGL needs no window and works in any thread.
if "MUJOCO_GL" not in os.environ:
    for _backend, _library in (("egl", "EGL"), ("osmesa", "OSMesa")):
        if ctypes.util.find_library(_library):
            os.environ["MUJOCO_GL"] = _backend
            break
