//! From a signed webhook of a page to Braze.

mod faults;
pub(crate) mod house;
mod journey;
mod load;
mod moves;
mod objects;
mod refused;
mod send_house;
mod sends;
mod sends_at_once;
