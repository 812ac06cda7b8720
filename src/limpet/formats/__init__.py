"""Bytes on disk: squashfs and SIF. Works on open files; starts no process."""
