"""The simulated Sawyer arm: Meta-World without ROS, and the same as a ROS 2 robot."""
