"""What containers and pods use, read when somebody asks.

cgroups.py         processor, memory and swap, with the pressure on them, as the interface's messages
network.py         traffic of a pod
layers.py          what containers have written to their root file systems
open_files.py      how many files they have open
metric_table.py    the metrics under the names that dashboards know; metric_samples.py their values,
                   metric_rows.py both as messages
"""
