"""Networks with the module names and widths of mmcls, mmdet and mmseg, whose named modules run in forward as there."""
