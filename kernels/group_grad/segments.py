"""Where a work item belongs."""

import triton
import triton.language as tl


@triton.jit
def segment_of(starts, item, n_segments, SEARCH: tl.constexpr):
    """How many segments have all their items before this one."""
    i_s = 0
    for i in range(0, n_segments, SEARCH):
        o_s = i + tl.arange(0, SEARCH)
        m_s = o_s < n_segments
        before = tl.load(starts + 1 + o_s, mask=m_s, other=0) <= item
        i_s += tl.sum((before & m_s).to(tl.int32), axis=0)
    return i_s
