//! Longer stories for `bridge demo`: what one recorded payload alone cannot show.

pub(crate) mod conversation;
