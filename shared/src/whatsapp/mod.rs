//! The WhatsApp relay: Braze forwards what people write, the brand's AI or agent system answers, and the
//! answer goes back through an API-triggered Braze campaign.
//!
//! ```text
//! body ─parse─▶ InboundMessage ─decide_inbound─▶ conversation + turn + outbox(message)
//!                                 ExternalRequest ─▶ external system ─▶ Answer
//! Answer ─decide_answer─▶ conversation + turns + outbox(reply) ─▶ /campaigns/trigger/send
//! ```
//!
//! Everything here is pure: what is known and the time go in, a plan comes out.
//!
//! * [`message`]: a message, its sender, and what makes a conversation.
//! * [`inbound`]: bodies that Braze posts, in every form; [`broken_json`] reads those that Liquid broke.
//! * [`duplicate`]: message ids, and the guards against the same message arriving again.
//! * [`conversation`]: what is stored of a conversation, and its turns.
//! * [`route`]: which route a message belongs to, and what a route means.
//! * [`decide`]: inbound message → plan.
//! * [`request`], [`answer`]: what an external system is asked, and what it may answer.
//! * [`decide::answer`]: answer → plan.
//! * [`split`], [`reply`]: a reply → the requests that Braze gets.

pub mod answer;
pub mod attributes;
mod base64_text;
pub mod broken_json;
pub mod conversation;
pub mod decide;
pub mod duplicate;
pub mod inbound;
mod json_string;
pub mod message;
pub mod plan;
pub mod reply;
pub mod request;
pub mod route;
pub mod settings;
pub mod split;
pub mod table;

#[cfg(test)]
mod tests;

pub use conversation::{Conversation, Mode, Role, Turn, TurnStatus};
pub use inbound::{Inbound, parse};
pub use message::{ConversationId, InboundMessage, Person};
