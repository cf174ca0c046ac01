"""The last mile: networks of a sweep rebuilt from its records, checked, and written in formats that others read."""
