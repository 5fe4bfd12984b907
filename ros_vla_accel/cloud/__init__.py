"""The way to a policy on another machine: wire format, client on the robot, worker."""
