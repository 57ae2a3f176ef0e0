"""The kernel of kernels/segment_order.py as launches specialise it on sm_90."""

from collections.abc import Iterator

from aot import Job

from fastdd.kernels import segment_order as kernels


def jobs() -> Iterator[Job]:
    kinds = {"segment": "*i64", "order": "*i64", "offsets": "*i64", "shares": "*fp32"}
    yield Job(kernels.segment_places, "segment_places", kinds)
