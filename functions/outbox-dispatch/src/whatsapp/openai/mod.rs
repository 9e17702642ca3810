//! External systems of kind `openai`: any OpenAI-compatible `/chat/completions`.
//! (<https://platform.openai.com/docs/api-reference/chat/create>)
//!
//! * [`request`]: what is posted, in the form that the strictest of such servers takes.
//! * [`completion`]: what is answered, and what of it is an answer; [`refused`]: what its errors mean.
//! * [`reasoning`]: what a model thinks aloud and nobody is to read.
//! * [`tools`]: what a model may do beside talking.
//! * [`chat`]: the few calls that one answer may take.

pub(super) mod chat;
pub(super) mod completion;
mod reasoning;
pub(super) mod refused;
mod request;
mod stream;
mod text;
mod tools;
