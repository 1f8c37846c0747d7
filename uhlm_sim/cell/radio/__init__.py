"""The radio: the channel above the cell, the uplink that all share, and the downlink."""
