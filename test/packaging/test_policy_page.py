"""The policy in docs/policies.md is complete: it loads, fits the contract and answers."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from ros_vla_accel.contracts import InferenceRequest, Observation
from ros_vla_accel.policies.loader import load_policy

torch = pytest.importorskip("torch")
PAGE = Path(__file__).parents[2] / "docs" / "policies.md"


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(9, 16 * 7)

    def forward(self, pixels, state):
        seen = torch.cat([pixels.mean(dim=(2, 3)), state], dim=1)
        return self.head(seen).reshape(-1, 16, 7)


@pytest.fixture
def policy(tmp_path, monkeypatch):
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL).group(1)
    (tmp_path / "page_policy.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    example = (torch.zeros(1, 3, 224, 224), torch.zeros(1, 6))
    torch.export.save(torch.export.export(Net().eval(), example), tmp_path / "net.pt2")
    yield load_policy("page_policy:make", {"checkpoint": str(tmp_path / "net.pt2")})
    sys.modules.pop("page_policy", None)


def test_the_policy_of_the_page_answers_an_observation_of_any_image_size(policy):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)
    observation = Observation({"wrist": image}, np.ones(6, np.float32), "go", stamp_ns=7)
    (chunk,) = policy.infer([InferenceRequest(observation, request_id=3, episode_id=2)])
    assert chunk.actions.shape == (policy.spec.horizon, len(policy.spec.action_names))
    assert chunk.actions.dtype == np.float32
    assert np.isfinite(chunk.actions).all()
    assert (chunk.request_id, chunk.episode_id, chunk.stamp_ns) == (3, 2, 7)
