"""Fill pictures with the workers of a Ray cluster.

>>> import glama_deploy.ray
>>> filled = glama_deploy.ray.inpaint(dataset, "big-lama", workers=8)

`glama-inpaint --ray` fills folders, object stores, WebDataset shards and Parquet files with
:func:`glama_deploy.ray.run.fill_pictures`. This package imports Ray when Ray is first used.
"""

from glama_deploy.ray.datasets import inpaint

__all__ = ["inpaint"]
