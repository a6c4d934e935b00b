"""The rows of the page, in the order in which they are measured."""

from . import back, cache, content, living, moments, profile, sidecar, transfer, ways

ROWS = {
    **transfer.ROWS,
    **living.ROWS,
    **sidecar.ROWS,
    **ways.ROWS,
    **moments.ROWS,
    **content.ROWS,
    **back.ROWS,
    **cache.ROWS,
    **profile.ROWS,
}
