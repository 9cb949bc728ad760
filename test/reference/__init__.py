"""The float64 reference: plain and slow, shares no code with compiler or quantizer."""
