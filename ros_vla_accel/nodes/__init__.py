"""The ROS 2 nodes: parameters, topics and lifecycle around plain classes."""
