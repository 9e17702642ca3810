//! Messenger and Instagram: what leaves for Braze.

pub mod sync;
