//! What the kernel should hold, and how to get there. Pure: no I/O, no clock, no logging.

pub mod sets;
