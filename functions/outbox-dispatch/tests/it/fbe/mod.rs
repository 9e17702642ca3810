//! From a signed install webhook to Graph, Braze and the catalog.

mod app_secret;
mod catalog;
mod catalog_limits;
mod claims;
mod crash;
mod decisions;
pub(crate) mod house;
mod life;
mod notice;
mod partner;
mod refresh;
mod scale;
mod switched;
mod token;
