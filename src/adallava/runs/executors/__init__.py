"""Who answers the units of a sweep: this process, or several of one host. One executor a file."""
