//! One module for each view.

pub(crate) mod businesses;
pub(crate) mod conversations;
pub(crate) mod flow;
pub(crate) mod labels;
pub(crate) mod people;
pub(crate) mod search;
pub(crate) mod tries;
pub(crate) mod unfolded;
pub(crate) mod waiting;
