//! From what a person writes to the reply that they get.

mod answers;
mod burst;
mod faults;
pub(crate) mod house;
mod kinds;
mod load;
mod meanwhile;
mod order;
mod pace;
mod replies;
mod story;
mod tables;
