"""Where a work item belongs."""

import triton
import triton.language as tl


@triton.jit
def items_of(offsets, o_s, m_s, positions, item_rows):
    """Work items of segments: one for every item_rows rows, and one where there are none, which writes zeros."""
    first = tl.load(offsets + o_s, mask=m_s, other=0)
    last = tl.load(offsets + o_s + 1, mask=m_s, other=0)
    return tl.where(m_s, tl.maximum(((last - first) * positions + (item_rows - 1)) // item_rows, 1), 0)


@triton.jit
def segment_of(offsets, item, n_segments, positions, item_rows, SEARCH: tl.constexpr):
    """The segment of a work item, the item's place in it, and its number of items; past all items, n_segments.

    Every program counts for itself: the offsets are in cache, and a launch costs more."""
    i_s = 0
    place = item.to(tl.int64)
    n_items = item.to(tl.int64) * 0
    before = item.to(tl.int64) * 0
    for i in range(0, n_segments, SEARCH):
        o_s = i + tl.arange(0, SEARCH)
        m_s = o_s < n_segments
        b_items = items_of(offsets, o_s, m_s, positions, item_rows)
        b_ends = before + tl.cumsum(b_items, axis=0)
        b_past = m_s & (b_ends <= item)
        b_mine = m_s & (b_ends > item) & (b_ends - b_items <= item)
        i_s += tl.sum(b_past.to(tl.int32), axis=0)
        place -= tl.sum(tl.where(b_past, b_items, 0), axis=0)
        n_items += tl.sum(tl.where(b_mine, b_items, 0), axis=0)
        before += tl.sum(b_items, axis=0)
    return i_s, place, n_items


@triton.jit
def items_before(offsets, i_s, n_segments, positions, item_rows, SEARCH: tl.constexpr):
    """Work items of all segments before one, and its own."""
    first = i_s.to(tl.int64) * 0
    n_items = first
    for i in range(0, n_segments, SEARCH):
        o_s = i + tl.arange(0, SEARCH)
        b_items = items_of(offsets, o_s, o_s < n_segments, positions, item_rows)
        first += tl.sum(tl.where(o_s < i_s, b_items, 0), axis=0)
        n_items += tl.sum(tl.where(o_s == i_s, b_items, 0), axis=0)
    return first, n_items
