"""What all services of a process share below gRPC: its memory, its temporary files, the caller of the moment."""
