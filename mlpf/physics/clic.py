"""The CLIC detector as far as several rooms must agree on it: field and calorimeter face.

``mlpf.layers`` may not know this room and repeats the two lengths; a test compares them.
"""

FIELD_T = 4.0
FACE_RADIUS_MM = 1500.0
FACE_HALF_LENGTH_MM = 2307.0
