//! proxier.
