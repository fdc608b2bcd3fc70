"""Pod networking through the Container Network Interface, with a bridge network built in."""
