"""Files on disk become pictures and samples; nothing here knows a model.

``photos`` and ``frames`` read a picture and place it on a model's input. The rest reads data sets::

    catalog         load_dataset: which kind lies in a folder
    samples         Sample, and DataSet, the base of all readers
    table           the lists in flat arrays: a million photos take 100 MB
    problems        Problem, and which names may be opened: nothing outside the data set's folder, through links neither
    audit           checks that are the same for all kinds
    lists, walk     text, XML and JSON with line numbers; pictures below a folder
    annotations     the XML of VOC and ILSVRC
    objects         photos that show several classes
    wsol, cub, ilsvrc, folders, tiny_imagenet, caltech, voc, coco, yolo     one reader for each layout

A reader's lists are read at first use and once. The first that is broken is a `DatasetError`, ``file:line: what is
wrong``; ``problems()`` goes on and yields all. Pictures are opened by neither, unless ``problems(pictures=True)`` asks.
"""
