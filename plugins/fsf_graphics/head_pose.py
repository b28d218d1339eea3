"""Conversion of head poses between rotation matrices and angles.

Yaw, pitch and roll are in degrees, positive towards the viewer's right, up, and clockwise in the image, as for
estimators of `pose_deg`. The rotation is roll after yaw after pitch; x is to the viewer's right, y down, z away.
"""

import numpy as np

# Pitch in degrees of the head model's upright head, whose nasion is vertically above the lower lip. The zero is a
# convention, and lower for other estimators. At pitch 0 of the head model's fit, on rendered heads pnp measures 2.4 and
# 3ddfa 1.5; on 521 photographs of LFW 3ddfa measures 2.1.
AHEAD = 2.0


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Return the rotation matrix (3, 3) of a pose in degrees."""
    y, p, r = np.radians([-yaw, -pitch, roll])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def angles(matrix: np.ndarray) -> np.ndarray:
    """Return yaw, pitch and roll (3,) in degrees of a rotation matrix (3, 3), which may be scaled."""
    turned = matrix / np.linalg.norm(matrix[0])
    yaw = np.arcsin(np.clip(turned[2, 0], -1, 1))
    pitch = -np.arctan2(turned[2, 1], turned[2, 2])
    roll = np.arctan2(turned[1, 0], turned[0, 0])
    return np.degrees([yaw, pitch, roll])
