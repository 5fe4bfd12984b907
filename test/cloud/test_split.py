"""Wherever a request is cut, edge and worker together compute the same actions."""

from __future__ import annotations

import numpy as np
import pytest
from cloud_test_support import healthy, wait_until

from ros_vla_accel.cloud.codec import encode_features, encode_observation, request_header
from ros_vla_accel.contracts import InferenceRequest, Observation, SplitPolicy
from ros_vla_accel.policies import reference

CUTS = ("observation", "vision", "backbone")
STEPS = 2


@pytest.fixture(scope="module")
def edge():
    return reference(steps=STEPS, threads=1)


@pytest.fixture(scope="module")
def scene(edge):
    rng = np.random.default_rng(0)
    images = {
        c.name: rng.integers(0, 256, (c.height, c.width, 3), np.uint8) for c in edge.spec.cameras
    }
    state = rng.uniform(-1, 1, len(edge.spec.state_names)).astype(np.float32)
    return Observation(images, state, "open the drawer", 7)


def answers(edge, client, inbox, scene, dtype="float32", bits=16) -> dict[str, np.ndarray]:
    """What the worker answers to the same question, by where it was cut."""
    found = {}
    for number, cut in enumerate(CUTS, start=1):
        content = scene if cut == "observation" else edge.encode(scene, cut, bits)
        asked = InferenceRequest(content, number, 1, seed=11, activation_bits=bits)
        whole = isinstance(content, Observation)
        tensors, data = (
            encode_observation(content, "raw") if whole else encode_features(content, dtype)
        )
        header = request_header(asked, tensors, edge.spec.identity, scene.instruction)
        assert client.submit(header, data, 20.0)
        chunk = inbox.wait(number, 20.0)[-1]
        assert (chunk.request_id, chunk.stamp_ns) == (number, 7)
        stages = {"vision", "backbone", "head"} & chunk.timings_s.keys()
        assert stages == {"vision", "backbone", "head"} - set(edge.spec.stages[: CUTS.index(cut)])
        found[cut] = chunk.actions
    return found


@pytest.fixture
def serve(make_worker, make_client, edge):
    def serve(policy):
        client = make_client(make_worker(policy).endpoint, edge.spec.identity)
        assert healthy(client)
        return client

    return serve


def test_every_cut_gives_the_actions_of_no_cut(edge, scene, serve, inbox):
    assert isinstance(edge, SplitPolicy)
    client = serve(reference(steps=STEPS, threads=1))
    here = edge.infer([InferenceRequest(scene, 1, 1, seed=11)])[0].actions
    for cut, actions in answers(edge, client, inbox, scene).items():
        np.testing.assert_array_equal(actions, here, err_msg=cut)


def test_the_width_of_a_request_is_that_of_its_stages_on_both_sides(scene, serve, inbox):
    edge = reference(steps=STEPS, threads=1, quantize="w4ax")
    client = serve(reference(steps=STEPS, threads=1, quantize="w4ax"))
    here = edge.infer([InferenceRequest(scene, 1, 1, seed=11, activation_bits=8)])[0].actions
    for cut, actions in answers(edge, client, inbox, scene, bits=8).items():
        np.testing.assert_array_equal(actions, here, err_msg=cut)


@pytest.mark.parametrize(("dtype", "largest"), [("float16", 0.02), ("int8", 0.1)])
def test_rounded_features_change_actions_a_little(edge, scene, serve, inbox, dtype, largest):
    client = serve(reference(steps=STEPS, threads=1))
    found = answers(edge, client, inbox, scene, dtype)
    for cut in CUTS[1:]:
        off = np.abs(found[cut] - found["observation"]).max()
        assert 0 < off < largest, cut


def test_the_precisions_of_both_sides_may_differ_and_are_told(edge, scene, serve, inbox):
    client = serve(reference(steps=STEPS, threads=1, dtype="bfloat16"))
    assert wait_until(lambda: client.stats().worker.endswith("(bfloat16)"))
    assert edge.spec.precision == "float32"
    found = answers(edge, client, inbox, scene)
    assert all(np.isfinite(actions).all() for actions in found.values())
