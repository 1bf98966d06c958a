"""On the side: logs; never on the path of a byte."""
