"""rtnetlink, as far as a CNI plugin needs it: the socket, the encoding and the requests.

In reading order:

    socket.py       batches of requests; encoding.py their bytes
    links.py        about interfaces; addresses.py about addresses and routes; vlans.py about VLANs of ports
    queries.py      what is there; watch.py when it changes
"""
