"""Collating, training pairs, evaluation pairs, sample faces, extraction, webdataset shards."""
