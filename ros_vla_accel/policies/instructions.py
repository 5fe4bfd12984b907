"""What people say for each task of the simulator: in training, and in tests of the wording."""

from __future__ import annotations

from typing import NamedTuple

WORDINGS = ("seen", "unseen")


class Wording(NamedTuple):
    """seen: instructions of training; the first one is the task's usual name in speech.
    unseen: never trained on, partly of words that training does not know."""

    seen: tuple[str, ...]
    unseen: tuple[str, ...]


def _choice(colour: str, other: str) -> Wording:
    """The two buttons: only the colour tells which."""
    return Wording(
        (
            f"press the {colour} button",
            f"push the {colour} button",
            f"push the {colour} button down",
            f"press the {colour} button from above",
            f"please press the {colour} button",
            f"press the button that is {colour}",
            f"hit the {colour} one",
            f"press the {colour} one of the two buttons",
            f"of the {colour} and the {other} button press the {colour} one",
            f"go to the {colour} button and press it",
            f"the {colour} button please",
            f"leave the {other} button alone and press the {colour} one",
        ),
        (
            f"could you press the {colour} button",
            f"push down the {colour} one",
            f"I want you to hit the {colour} button",
            f"find the {colour} button and push it down",
            f"press down on the {colour} button now",
        ),
    )


PARAPHRASES: dict[str, Wording] = {
    "drawer-open": Wording(
        (
            "open the drawer",
            "pull the drawer open",
            "pull out the drawer",
            "grab the drawer handle and pull",
            "please open that drawer",
            "slide the drawer out",
            "open up the green drawer",
            "pull the handle of the drawer",
            "go to the drawer and open it",
            "the drawer should be open",
        ),
        (
            "could you open the drawer",
            "please pull the drawer out",
            "take the handle and open the drawer",
            "I want the drawer opened",
            "get the green drawer open now",
        ),
    ),
    "button-press-topdown": Wording(
        (
            "press the button",
            "push the button down",
            "press the button from above",
            "push down on the button",
            "please press that button",
            "hit the button from the top",
            "press the only button",
            "go to the button and press it",
            "the button please",
            "push that button",
        ),
        (
            "could you press the button",
            "hit that button",
            "please push down the button from the top",
            "I want you to press the button",
            "press down on the button now",
        ),
    ),
    "button-press-red": _choice("red", "blue"),
    "button-press-blue": _choice("blue", "red"),
    "door-open": Wording(
        (
            "open the door",
            "pull the door open",
            "swing the door open",
            "grab the door handle and pull",
            "please open that door",
            "open the door of the box",
            "pull the handle of the door",
            "go to the door and open it",
            "the door should be open",
            "open up the black door",
        ),
        (
            "could you open the door",
            "please swing that door open",
            "take the handle and open the door",
            "I want the door opened",
            "get the door of the safe open now",
        ),
    ),
    "window-open": Wording(
        (
            "open the window",
            "slide the window open",
            "push the window to the side",
            "move the window handle to open it",
            "please open that window",
            "slide the window to the right",
            "push the handle of the window",
            "go to the window and open it",
            "the window should be open",
            "push the window open",
        ),
        (
            "could you open the window",
            "please push that window to the right",
            "take the handle and slide the window open",
            "I want the window opened",
            "get the window open now",
        ),
    ),
    "pick-place": Wording(
        (
            "pick up the puck and bring it to the goal",
            "pick and place the puck",
            "lift the puck to the target",
            "grasp the puck and carry it to the goal",
            "please move the puck to the target point",
            "take the red puck to the goal",
            "grab the puck and take it to the target",
            "bring the puck to the goal",
            "put the puck at the goal",
            "move the puck up to the target",
        ),
        (
            "could you take the puck to the target",
            "please lift the puck and bring it to the goal",
            "grab the red puck and put it at the target",
            "I want the puck at the goal",
            "deliver the puck to the target point now",
        ),
    ),
    "peg-insert-side": Wording(
        (
            "insert the peg into the hole",
            "put the peg into the box from the side",
            "grasp the peg and insert it",
            "pick up the green peg and push it into the hole",
            "please insert that peg sideways",
            "plug the peg into the side of the box",
            "take the peg and put it into the hole",
            "push the peg into the box",
            "the peg belongs into the hole",
            "bring the green peg to the hole and insert it",
        ),
        (
            "could you insert the peg",
            "please plug the green peg into the hole",
            "grab the peg and push it into the side of the box",
            "I want the peg inserted into the box",
            "stick the peg into the hole now",
        ),
    ),
}


def instructions(task: str, wording: str = "seen") -> tuple[str, ...]:
    """Instructions of a task, with or without its version suffix; ValueError if unknown."""
    name = task.removesuffix("-v3")
    if name not in PARAPHRASES:
        raise ValueError(f"no instructions for task '{task}'; known: {', '.join(PARAPHRASES)}")
    if wording not in WORDINGS:
        raise ValueError(f"wording '{wording}' is unknown; choose from {', '.join(WORDINGS)}")
    return PARAPHRASES[name].seen if wording == "seen" else PARAPHRASES[name].unseen
