"""rtnetlink, as far as a CNI plugin needs it: the socket, the encoding and the requests."""
