"""What people say for each task of the simulator: the instructions of training and evaluation."""

from __future__ import annotations

PARAPHRASES: dict[str, tuple[str, ...]] = {
    "drawer-open": (
        "open the drawer",
        "pull the drawer open",
        "pull out the drawer",
        "grab the drawer handle and pull",
        "please open that drawer",
        "slide the drawer out",
    ),
    "button-press-topdown": (
        "press the button",
        "push the button down",
        "press the button from above",
        "push down on the red button",
        "please press that button",
        "hit the button from the top",
    ),
    "door-open": (
        "open the door",
        "pull the door open",
        "swing the door open",
        "grab the door handle and pull",
        "please open that door",
        "open the door of the box",
    ),
    "window-open": (
        "open the window",
        "slide the window open",
        "push the window to the side",
        "move the window handle to open it",
        "please open that window",
        "slide the window to the right",
    ),
    "pick-place": (
        "pick up the puck and bring it to the goal",
        "pick and place the puck",
        "lift the puck to the target",
        "grasp the puck and carry it to the goal",
        "please move the puck to the target point",
        "take the red puck to the goal",
    ),
    "peg-insert-side": (
        "insert the peg into the hole",
        "put the peg into the box from the side",
        "grasp the peg and insert it",
        "pick up the green peg and push it into the hole",
        "please insert that peg sideways",
        "plug the peg into the side of the box",
    ),
}
"""Task -> instructions; the first one is the task's usual name in speech."""


def instructions(task: str) -> tuple[str, ...]:
    """Instructions of a task, with or without its version suffix; ValueError if unknown."""
    name = task.removesuffix("-v3")
    if name not in PARAPHRASES:
        raise ValueError(f"no instructions for task '{task}'; known: {', '.join(PARAPHRASES)}")
    return PARAPHRASES[name]
