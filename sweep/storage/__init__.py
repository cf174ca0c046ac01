"""What a sweep leaves on disk: every file name, the writer, the reader, the locks and the mirror."""
