"""Lifecycle nodes: transitions, callbacks, services, events, managed publishers."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from lifecycle_msgs.msg import State as StateMessage
from lifecycle_msgs.msg import Transition, TransitionEvent
from lifecycle_msgs.srv import (
    ChangeState,
    GetAvailableStates,
    GetAvailableTransitions,
    GetState,
)
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_msgs.msg import String

SUCCESS, FAILURE, ERROR = (
    TransitionCallbackReturn.SUCCESS,
    TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR,
)


class Managed(LifecycleNode):
    """Records its transitions; ``answers`` overrides what a callback returns."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.seen: list[tuple[str, str]] = []
        self.answers: dict[str, Any] = {}

    def _note(self, callback: str, state: LifecycleState) -> TransitionCallbackReturn:
        self.seen.append((callback, state.label))
        answer = self.answers.get(callback, SUCCESS)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._note("configure", state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        super().on_activate(state)
        return self._note("activate", state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        super().on_deactivate(state)
        return self._note("deactivate", state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._note("cleanup", state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._note("shutdown", state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._note("error", state)


@pytest.fixture
def node(ros: Any) -> Managed:
    return ros.node("managed", Managed)


def state_of(ros: Any) -> str:
    return ros.call(GetState, "/managed/get_state", GetState.Request()).current_state.label


def test_a_node_goes_through_its_life(ros: Any, node: Managed) -> None:
    assert state_of(ros) == "unconfigured"
    for trigger, state in (
        (node.trigger_configure, "inactive"),
        (node.trigger_activate, "active"),
        (node.trigger_deactivate, "inactive"),
        (node.trigger_cleanup, "unconfigured"),
        (node.trigger_shutdown, "finalized"),
    ):
        assert trigger() == SUCCESS
        assert state_of(ros) == state
    assert node.seen == [
        ("configure", "unconfigured"),
        ("activate", "inactive"),
        ("deactivate", "active"),
        ("cleanup", "inactive"),
        ("shutdown", "unconfigured"),
    ]


def test_a_failed_transition_leaves_the_state(ros: Any, node: Managed) -> None:
    node.answers["configure"] = FAILURE
    assert node.trigger_configure() == FAILURE
    assert state_of(ros) == "unconfigured"


@pytest.mark.parametrize("problem", [ERROR, RuntimeError("broken")])
def test_a_handled_error_leads_to_unconfigured(ros: Any, node: Managed, problem: Any) -> None:
    node.trigger_configure()
    node.answers["activate"] = problem
    assert node.trigger_activate() == ERROR
    assert state_of(ros) == "unconfigured"
    assert node.seen[-1][0] == "error"


def test_an_unhandled_error_leads_to_finalized(ros: Any, node: Managed) -> None:
    node.answers.update(configure=ERROR, error=FAILURE)
    assert node.trigger_configure() == ERROR
    assert state_of(ros) == "finalized"


def test_an_impossible_transition_changes_nothing(ros: Any, node: Managed) -> None:
    with contextlib.suppress(RuntimeError):  # Jazzy raises RCLError, later ones answer.
        assert node.trigger_activate() == ERROR
    assert state_of(ros) == "unconfigured"
    assert node.seen == []


def test_a_service_changes_the_state_by_id_or_label(ros: Any, node: Managed) -> None:
    request = ChangeState.Request()
    request.transition.id = Transition.TRANSITION_CONFIGURE
    assert ros.call(ChangeState, "/managed/change_state", request).success
    assert state_of(ros) == "inactive"
    request = ChangeState.Request()
    request.transition.label = "activate"
    assert ros.call(ChangeState, "/managed/change_state", request).success
    assert state_of(ros) == "active"
    assert not ros.call(ChangeState, "/managed/change_state", request).success
    assert state_of(ros) == "active"


def test_states_and_transitions_are_listed(ros: Any, node: Managed) -> None:
    states = ros.call(
        GetAvailableStates, "/managed/get_available_states", GetAvailableStates.Request()
    ).available_states
    labels = {state.id: state.label for state in states}
    assert labels[StateMessage.PRIMARY_STATE_ACTIVE] == "active"
    assert len(labels) == 11
    request = GetAvailableTransitions.Request()
    now = ros.call(
        GetAvailableTransitions, "/managed/get_available_transitions", request
    ).available_transitions
    assert {(t.transition.id, t.transition.label, t.goal_state.label) for t in now} == {
        (1, "configure", "configuring"),
        (5, "shutdown", "shuttingdown"),
    }
    graph = ros.call(
        GetAvailableTransitions, "/managed/get_transition_graph", request
    ).available_transitions
    assert len(graph) == 25


def test_transitions_are_published(ros: Any, node: Managed) -> None:
    events: list[TransitionEvent] = []
    subscription = ros.node("watcher").create_subscription(
        TransitionEvent, "/managed/transition_event", events.append, 10
    )
    assert ros.until(lambda: subscription.get_publisher_count() >= 1)
    node.trigger_configure()
    assert ros.until(lambda: events)
    assert events[-1].goal_state.label in ("configuring", "inactive")


def test_a_lifecycle_publisher_is_silent_while_inactive(ros: Any, node: Managed) -> None:
    received: list[str] = []
    publisher = node.create_lifecycle_publisher(String, "topic", 10)
    ros.node("watcher").create_subscription(String, "topic", lambda m: received.append(m.data), 10)
    assert ros.until(lambda: publisher.get_subscription_count() == 1)
    publisher.publish(String(data="before"))
    node.trigger_configure()
    node.trigger_activate()
    assert publisher.is_activated
    publisher.publish(String(data="during"))
    node.trigger_deactivate()
    publisher.publish(String(data="after"))
    assert ros.until(lambda: received)
    assert not ros.until(lambda: len(received) > 1, timeout_s=0.1)
    assert received == ["during"]
