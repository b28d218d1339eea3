"""The user study of FaceShifter (arXiv:1912.13457, table 2): people choose among the results of several methods."""
