"""A kernel that answers for a day holds no more than one that has just warmed up: `make soak`, in short."""

from soak.server import ONE_IN
from soak.soak import SAMPLES, grows, soak


def test_a_thousand_requests_leave_nothing_in_the_kernel(tmp_path):
    """Shown, quiet, stopped, interrupted, in rows, one in twenty a fault: no thread, descriptor or comm is left."""
    samples = list(soak(tmp_path, 1000))
    assert len(samples) == SAMPLES
    assert samples[-1].requests >= 1000
    assert samples[-1].faults >= 1000 // ONE_IN - 1
    assert 0 < samples[-1].failed < samples[-1].cells / 10
    assert grows(samples) == []
