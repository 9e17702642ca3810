//! Stories that `bridge demo` plays from beginning to end, and what must have come of each step.

mod business;
pub(crate) mod campaign;
pub(crate) mod conversation;
pub(crate) mod fbe_life;
pub(crate) mod forget;
mod talk;
pub(crate) mod vendors;
