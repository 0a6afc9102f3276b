"""One file a task: a volume in, a :class:`~deepmrseg_bids.tasks.results.Segmentation` out.

:func:`deepmrseg_bids.tasks.pipeline.run` does several for one session.
"""
