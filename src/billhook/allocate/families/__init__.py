"""The allocators. One file is one allocator."""
