//! `POST /messenger/send`: messages that a Braze campaign sends through Meta.
//!
//! The message is looked at, made durable and answered; `outbox-dispatch` sends it.

use std::collections::HashMap;

use bytes::Bytes;
use lambda_http::Request;
use lambda_http::http::{HeaderMap, Method, StatusCode};
use serde_json::json;
use shared::clock::Clock;
use shared::config::Env;
use shared::messenger::key::ContactKey;
use shared::messenger::send::request::{Invalid, Recipient};
use shared::messenger::send::{self, Refusal, SendRequest};
use shared::messenger::settings;
use shared::messenger::sync::Stored;
use shared::messenger::table::Contacts;
use shared::outbox::Outbox;
use shared::secrets::{MetaSecret, RelaySecret, Secret};
use shared::store::StoreError;
use shared::telemetry;
use shared::webhook::access::{admit, by_bearer};
use shared::webhook::answer::field_invalid;
use shared::webhook::{Answer, ErrorCode, answer, receive};
use uuid::Uuid;

/// What the function reads from its environment.
#[derive(Debug)]
pub struct Settings {
    meta_secret_id: String,
    relay_secret_id: String,
    contacts_table: String,
    outbox_table: String,
    events: Vec<String>,
}

impl Settings {
    /// Reads the environment.
    pub fn read(env: &mut Env<'_>) -> Self {
        Self {
            meta_secret_id: env.required("META_SECRET_ID"),
            relay_secret_id: env.required("RELAY_SECRET_ID"),
            contacts_table: env.required("CONTACTS_TABLE"),
            outbox_table: env.required("OUTBOX_TABLE"),
            events: settings::events(env),
        }
    }
}

/// The function.
pub struct App {
    meta: Secret<MetaSecret>,
    relay: Secret<RelaySecret>,
    contacts: Contacts,
    outbox: Outbox,
    events: Vec<String>,
    clock: Clock,
}

impl App {
    /// Nothing is fetched yet.
    #[must_use]
    pub fn new(
        settings: Settings,
        secrets: &aws_sdk_secretsmanager::Client,
        dynamodb: &aws_sdk_dynamodb::Client,
        clock: Clock,
    ) -> Self {
        let outbox = Outbox::new(dynamodb.clone(), settings.outbox_table, clock.clone());
        Self {
            meta: Secret::new(secrets.clone(), &settings.meta_secret_id, clock.clone()),
            relay: Secret::new(secrets.clone(), &settings.relay_secret_id, clock.clone()),
            contacts: Contacts::new(
                dynamodb.clone(),
                settings.contacts_table,
                outbox.clone(),
                clock.clone(),
            ),
            outbox,
            events: settings.events,
            clock,
        }
    }

    /// 202 once the message is durable; 400, 401, 404, 409, 413 or 503 as the route has it.
    pub async fn handle(&self, request: Request) -> Answer {
        if request.method() != Method::POST {
            return ErrorCode::MethodNotAllowed.answer();
        }
        let (parts, body) = match receive::take(request) {
            Ok(taken) => taken,
            Err(code) => return code.answer(),
        };
        Box::pin(self.send(&parts.headers, body))
            .await
            .unwrap_or_else(|refusal| refusal)
    }

    async fn send(&self, headers: &HeaderMap, body: Bytes) -> Result<Answer, Answer> {
        admit(&self.relay, |secret: &RelaySecret| {
            by_bearer(headers, secret.send_tokens())
        })
        .await?;
        let request = send::request::parse(&body).map_err(|invalid| match invalid {
            Invalid::Field(field, expected) => field_invalid(field, expected),
            Invalid::TagRetired => ErrorCode::TagRetired.answer(),
        })?;
        let Stored { contact, .. } = self.recipient(&request).await?;
        let key = contact.key.clone();
        let send_id = match &request.dispatch_id {
            Some(dispatch_id) => send::send_id(dispatch_id, &key),
            None => Uuid::new_v4().simple().to_string(),
        };
        let message = request.message(send_id.clone());
        let item = message.item(&key);
        let now = self.clock.now();
        let Some(refusal) = send::refusal(&contact, message.way, now) else {
            let is_new = self
                .outbox
                .add(&item)
                .await
                .map_err(|error| unavailable(&error))?;
            return Ok(accepted(if is_new { "accepted" } else { "duplicate" }, &send_id));
        };
        // What was taken while it was allowed stays taken.
        let before = self.outbox.get(&item.subject, &item.event_key).await;
        if before.map_err(|error| unavailable(&error))?.is_some() {
            return Ok(accepted("duplicate", &send_id));
        }
        metrics::counter!(telemetry::MESSENGER_SEND_FAILURES).increment(1);
        if let Some(event) = message.failed(&key, refusal.into(), now, &self.events) {
            let reported = self.outbox.add(&event).await;
            reported.map_err(|error| unavailable(&error))?;
        }
        Err(match refusal {
            Refusal::OptedOut => ErrorCode::OptedOut,
            Refusal::Unreachable => ErrorCode::Unreachable,
            Refusal::WindowClosed => ErrorCode::SendWindowClosed,
        }
        .answer())
    }

    /// The contact that a message is for.
    async fn recipient(&self, request: &SendRequest) -> Result<Stored, Answer> {
        let keys = match &request.recipient {
            Recipient::User(user_id) => {
                let keys = self.contacts.of_user(user_id).await;
                keys.map_err(|error| unavailable(&error))?
            }
            Recipient::Scoped(scoped_id) => {
                let accounts = match &request.account_id {
                    Some(account_id) => vec![account_id.clone()],
                    None => self.accounts().await?,
                };
                let key = |account_id| ContactKey {
                    channel: request.channel,
                    account_id,
                    scoped_id: scoped_id.clone(),
                };
                accounts.into_iter().map(key).collect()
            }
        };
        let is_meant = |key: &ContactKey| {
            key.channel == request.channel
                && request.account_id.as_ref().is_none_or(|id| *id == key.account_id)
        };
        let keys: Vec<ContactKey> = keys.into_iter().filter(is_meant).collect();
        let known = self.contacts.read(&keys, &[], &[]).await;
        let mut known = known.map_err(|error| unavailable(&error))?;
        if !known.unreadable_contacts.is_empty() {
            return Err(ErrorCode::StoreUnavailable.answer());
        }
        match &request.recipient {
            Recipient::User(user_id) => {
                known
                    .contacts
                    .retain(|_, stored| stored.contact.user_id() == Some(user_id.as_str()));
                carrier(known.contacts)
            }
            Recipient::Scoped(_) => {
                if known.contacts.len() > 1 {
                    return Err(field_invalid(
                        "page_id",
                        "says which page: the `psid` is known on several",
                    ));
                }
                known.contacts.into_values().next()
            }
        }
        .ok_or_else(|| ErrorCode::ContactUnknown.answer())
    }

    /// The pages and Instagram accounts whose people can be written to.
    async fn accounts(&self) -> Result<Vec<String>, Answer> {
        let secret = self.meta.get().await;
        let secret = secret.map_err(|error| telemetry::secrets_unavailable(&error))?;
        if secret.page_access_tokens.is_empty() {
            return Err(field_invalid(
                "page_id",
                "is needed: the meta secret names no page",
            ));
        }
        Ok(secret.page_access_tokens.keys().cloned().collect())
    }
}

/// Of a user's contacts, the one that acted last: a link is an act, and a sync writes the id of the one whose act it is
/// about.
fn carrier(contacts: HashMap<ContactKey, Stored>) -> Option<Stored> {
    contacts.into_values().max_by(|a, b| {
        let acted = |stored: &Stored| stored.contact.last_interaction;
        (acted(a), &a.contact.key).cmp(&(acted(b), &b.contact.key))
    })
}

fn accepted(status: &str, send_id: &str) -> Answer {
    answer::json(
        StatusCode::ACCEPTED,
        &json!({"status": status, "send_id": send_id}),
    )
}

fn unavailable(error: &StoreError) -> Answer {
    tracing::error!(%error, "a message could not be made durable");
    ErrorCode::StoreUnavailable.answer()
}
