//! What tests and `bridge local` run against: AWS embedded in the process, and stand-ins for everybody else.

pub mod aws;
pub mod lambda;
pub mod template;
