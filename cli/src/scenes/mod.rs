//! Stories that `bridge demo` plays from beginning to end, and what must have come of each step.

pub(crate) mod conversation;
pub(crate) mod fbe_life;
