"""ROS 2's conventions on CycloneDDS: configuration, types, endpoints, discovery info."""
