"""Volumes of pods: directories made, drivers called, everything undone again, whatever dies in between.

In reading order:

    manager.py      the volumes of all pods; recovery.py what could not be undone at once
    plan.py         what a pod's volumes are: claims.py, from storage.py values read by document.py
    layout.py       where they are
    empty_dir.py, host_path.py   directories
    csi_volume.py   volumes of drivers: drivers.py who is there, csi_request.py how it is put, target_path.py where
    deadline.py     file systems that may not answer; errors.py why a volume is not there
"""
