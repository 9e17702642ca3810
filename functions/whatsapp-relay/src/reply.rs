//! From an answer that comes later to replies that are on their way.

use lambda_http::http::{HeaderMap, StatusCode};
use serde_json::json;
use shared::store::{Rounds, StoreError};
use shared::webhook::access::admit;
use shared::webhook::{Answer, ErrorCode, answer, standard};
use shared::whatsapp::answer::parse_reply;
use shared::whatsapp::duplicate::reply_guard;
use shared::whatsapp::route::ReplyRules;
use shared::whatsapp::settle::{decide_answer, unsendable};
use shared::whatsapp::table::Committed;

use crate::{App, CONTENDED, access, store_unavailable};

impl App {
    /// An answer is taken once: `webhook-id` tells a repetition, which is answered as such.
    pub(crate) async fn reply(&self, headers: &HeaderMap, body: &[u8]) -> Result<Answer, Answer> {
        let received = self.clock.now();
        admit(&self.secret, |secret| {
            access::reply(headers, body, secret, received)
        })
        .await?;
        let (id, reply) =
            parse_reply(body).map_err(|error| answer::field_invalid(&error.field, error.problem))?;
        let rules = ReplyRules::from(&self.settings);
        let guard = reply_guard(standard::id(headers), body, received);
        let failed = |error: StoreError| store_unavailable(&error);
        let mut rounds = Rounds::new(CONTENDED);
        loop {
            let (stored, seen) = self
                .conversations
                .read_guarded(&id, &guard)
                .await
                .map_err(failed)?;
            let Some(stored) = stored else {
                return Err(ErrorCode::ConversationUnknown.answer());
            };
            // Before anything else: what was accepted stays so, also after the window has closed.
            if seen {
                return Ok(status("duplicate"));
            }
            let now = self.clock.now();
            if unsendable(&stored, &reply, rules, now).is_some() {
                return Err(ErrorCode::WindowClosed.answer());
            }
            let mut plan = decide_answer(&stored, &[], &reply, rules, now);
            plan.guards.push(guard.clone());
            match self.conversations.commit(&plan).await.map_err(failed)? {
                Committed::Yes => return Ok(status("accepted")),
                Committed::Duplicate => return Ok(status("duplicate")),
                Committed::Stale | Committed::HandedOver => rounds.next().await.map_err(failed)?,
            }
        }
    }
}

fn status(status: &str) -> Answer {
    answer::json(StatusCode::ACCEPTED, &json!({ "status": status }))
}
