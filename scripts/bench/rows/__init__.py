"""The rows of the page, in the order in which they are measured."""

from . import back, cache, content, living, moments, profile, sidecar, transfer

ROWS = {
    **transfer.ROWS,
    **living.ROWS,
    **sidecar.ROWS,
    **moments.ROWS,
    **content.ROWS,
    **back.ROWS,
    **cache.ROWS,
    **profile.ROWS,
}
