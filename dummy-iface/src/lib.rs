//! A dummy network interface and its addresses.
