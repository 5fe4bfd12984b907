"""A node process for the tests: echoes, serves, logs what it was told; run as a script."""

# ruff: noqa: E402 (the middleware is chosen before rclpy is imported)

from __future__ import annotations

import sys

from ros_vla_accel import middleware

middleware.install()

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from std_msgs.msg import String
from std_srvs.srv import Trigger


class Echo(Node):
    """Publishes on ``out`` what arrives on ``in``, with the parameter ``mark`` before it."""

    def __init__(self) -> None:
        super().__init__("echo")
        self.mark = self.declare_parameter("mark", "").value
        self.publisher = self.create_publisher(String, "out", 10)
        self.create_subscription(String, "in", self.echo, 10)
        self.create_service(Trigger, "~/ping", self.ping)
        self.starting = self.create_timer(0.0, self.ready)

    def ready(self) -> None:
        self.starting.cancel()
        print("ready", flush=True)

    def echo(self, message: String) -> None:
        self.publisher.publish(String(data=self.mark + message.data))

    def ping(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = True, self.get_fully_qualified_name()
        return response


def main() -> int:
    rclpy.init(args=sys.argv)
    node = Echo()
    try:
        rclpy.spin(node)
        end = "returned"
    except KeyboardInterrupt:
        end = "interrupt"
    except ExternalShutdownException:
        end = "shutdown"
    except Exception:
        # rclpy's SIGTERM handler may shut down between two waits, which the next one refuses.
        if rclpy.ok():
            raise
        end = "shutdown"
    node.destroy_node()
    rclpy.try_shutdown()
    print(end, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
