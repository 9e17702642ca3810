//! From a signed install webhook to Graph, Braze and the catalog.

mod catalog;
mod crash;
pub(crate) mod house;
mod life;
mod token;
