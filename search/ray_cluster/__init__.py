"""The cluster executor: evaluations run as Ray Tune trials, and only the driver touches the study.

``options`` and ``resources`` know no Ray, so that a command line can be checked where it is not installed;
everything else is imported when ``--executor ray`` asks for it.
"""
