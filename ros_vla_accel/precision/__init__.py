"""DyQ-VLA's decision: the robot's motion sets the activation width (arXiv:2603.07904)."""
