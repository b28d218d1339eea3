"""A head's pose as a rotation and as angles.

Yaw, pitch and roll are in degrees; positive is towards the viewer's right, up, and clockwise as seen, as estimators of
`pose_deg` have it. The rotation is roll after yaw after pitch, in a space with x to the viewer's right, y down, z away.
"""

import numpy as np

# Degrees of pitch of a head that the head model calls upright, with the nasion straight above the lower lip. Where zero
# is, is convention, and others have it lower: where that head has 0, pnp reads 2.4 and 3ddfa 1.5 on rendered heads, and
# 3ddfa 2.1 on 521 photographs of LFW, against the head model's fit.
AHEAD = 2.0


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """The rotation (3, 3) of a head that is turned."""
    y, p, r = np.radians([-yaw, -pitch, roll])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def angles(matrix: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll (3,) of a rotation (3, 3), which may be scaled."""
    turned = matrix / np.linalg.norm(matrix[0])
    yaw = np.arcsin(np.clip(turned[2, 0], -1, 1))
    pitch = -np.arctan2(turned[2, 1], turned[2, 2])
    roll = np.arctan2(turned[1, 0], turned[0, 0])
    return np.degrees([yaw, pitch, roll])
