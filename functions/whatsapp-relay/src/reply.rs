//! From an answer that comes later to replies that are on their way.

use bytes::Bytes;
use lambda_http::http::{HeaderMap, StatusCode};
use serde_json::json;
use shared::outbox::Reason;
use shared::store::{Rounds, StoreError};
use shared::telemetry;
use shared::webhook::access::admit;
use shared::webhook::{Answer, ErrorCode, answer, standard};
use shared::whatsapp::ConversationId;
use shared::whatsapp::answer::{Answer as Said, parse_reply};
use shared::whatsapp::decide::answer::{decide_answer, unsendable};
use shared::whatsapp::duplicate::{DuplicateGuard, reply_guard};
use shared::whatsapp::route::named;
use shared::whatsapp::table::{By, Committed, Stored};

use crate::{App, CONTENDED, access, store_unavailable};

impl App {
    /// An answer is taken once: `webhook-id` tells a repetition, which is answered as such.
    pub(crate) async fn reply(&self, headers: &HeaderMap, body: Bytes) -> Result<Answer, Answer> {
        let received = self.clock.now();
        let secret = admit(&self.secret, |secret| {
            access::reply(headers, &body, secret, received)
        })
        .await?;
        let (id, mut reply) =
            parse_reply(&body).map_err(|error| answer::field_invalid(&error.field, error.problem))?;
        if let Some(name) = reply.take_reserved(&self.settings.rules.reserved).first() {
            let field = format!("attributes.{name}");
            return Err(answer::field_invalid(
                &field,
                "is the profile's own or the bridge's, and not for an answer to write",
            ));
        }
        let guard = reply_guard(standard::id(headers), &body, received);
        // Each route's system writes only into the conversations on its route. A route that the settings no longer know
        // counts as none.
        let opens = |stored: &Stored| {
            let route = named(stored.conversation.route.as_deref(), &self.settings.rules.routes);
            let credentials = secret.credentials(route.map(|route| route.name.as_str()));
            access::opens(headers, &body, credentials, received)
        };
        match self.take(&id, &reply, &guard, opens).await {
            Err(Failed::Store(error)) if error.is_unreadable() => {
                error.count_unreadable("conversation");
                self.quarantine(body.clone(), Reason::ConversationUnreadable)
                    .await
            }
            Err(Failed::Store(error)) => Err(store_unavailable(&error)),
            Err(Failed::Refused(code)) => {
                if code == ErrorCode::ConversationForeign {
                    metrics::counter!(telemetry::TOKEN_FAILURES).increment(1);
                    tracing::warn!("an answer was refused: the conversation is on another system's route");
                }
                Err(code.answer())
            }
            Ok(taken) => Ok(status(if taken { "accepted" } else { "duplicate" })),
        }
    }

    /// `false` if it has been here before.
    async fn take(
        &self,
        id: &ConversationId,
        reply: &Said,
        guard: &DuplicateGuard,
        opens: impl Fn(&Stored) -> bool,
    ) -> Result<bool, Failed> {
        let rules = &self.settings.rules;
        let mut rounds = Rounds::new(CONTENDED);
        // What the system is being asked is answered by this, whatever becomes of the call.
        let mut settles = !reply.replies.is_empty();
        let mut skipped = false;
        loop {
            let (stored, seen) = self.conversations.read_guarded(id, guard).await?;
            let mut stored = stored.ok_or(Failed::Refused(ErrorCode::ConversationUnknown))?;
            if !opens(&stored) {
                return Err(Failed::Refused(ErrorCode::ConversationForeign));
            }
            // Before anything else: what was accepted stays so, also after the window has closed.
            if seen {
                return Ok(false);
            }
            if skipped {
                self.conversations.skip_ahead(&mut stored.conversation).await?;
            }
            let now = self.clock.now();
            if unsendable(&stored.conversation, reply, rules, now).is_some() {
                return Err(Failed::Refused(ErrorCode::WindowClosed));
            }
            let mut plan = decide_answer(&stored.conversation, &[], reply, rules, now);
            plan.guards.push(guard.clone());
            if settles && !stored.asking.is_empty() {
                plan.handed_over = stored.asking;
                plan.conversation.fallback_sent = false;
            }
            match self.conversations.commit(&plan, By::Door).await? {
                Committed::Yes => return Ok(true),
                Committed::Duplicate => return Ok(false),
                // The answer to the call was quicker.
                Committed::HandedOver => settles = false,
                Committed::Behind => skipped = true,
                Committed::Erased => return Err(Failed::Refused(ErrorCode::ConversationUnknown)),
                Committed::Stale => {}
            }
            rounds.next().await?;
        }
    }
}

enum Failed {
    Refused(ErrorCode),
    Store(StoreError),
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn status(status: &str) -> Answer {
    answer::json(StatusCode::ACCEPTED, &json!({ "status": status }))
}
