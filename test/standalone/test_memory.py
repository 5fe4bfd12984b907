"""Images reuse the memory of the ones before them, where the C library can be told so."""

import resource

import pytest

from ros_vla_accel.standalone.dds.memory import keep_freed_memory


def faults_of_images(count: int) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        bytes(921_600)  # One 640x480 RGB image.
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_images_fault_no_pages_in_once_the_memory_is_kept():
    if not keep_freed_memory({}):
        pytest.skip("this C library has no mallopt")
    faults_of_images(3)
    assert faults_of_images(20) < 225, "fewer than one image's pages"


def test_what_the_user_set_is_left_alone():
    if not keep_freed_memory({}):
        pytest.skip("this C library has no mallopt")
    mine = {"MALLOC_TRIM_THRESHOLD_": "1", "MALLOC_TOP_PAD_": "1"}
    assert keep_freed_memory(mine) == ["MALLOC_MMAP_THRESHOLD_"]
