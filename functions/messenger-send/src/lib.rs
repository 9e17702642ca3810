//! `POST /messenger/send`: messages that a Braze campaign sends through Meta.
//!
//! The message is looked at, made durable and answered; `outbox-dispatch` sends it.

use bytes::Bytes;
use jiff::Timestamp;
use lambda_http::Request;
use lambda_http::http::{HeaderMap, Method, StatusCode};
use serde_json::json;
use shared::clock::Clock;
use shared::config::Env;
use shared::messenger::contact::Contact;
use shared::messenger::key::ContactKey;
use shared::messenger::send::request::{Invalid, Recipient};
use shared::messenger::send::{self, Refusal, SendRequest};
use shared::messenger::settings;
use shared::messenger::sync::Stored;
use shared::messenger::table::{Added, Contacts};
use shared::outbox::Outbox;
use shared::personal::Personal;
use shared::secrets::{MetaSecret, RelaySecret, Secret};
use shared::store::StoreError;
use shared::telemetry;
use shared::webhook::access::{admit, by_bearer};
use shared::webhook::answer::field_invalid;
use shared::webhook::{Answer, ErrorCode, answer, receive, secrets_unavailable};
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
            contacts: Contacts::new(settings.contacts_table, outbox.clone()),
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
        let now = self.clock.now();
        let contact = self.recipient(&request, now).await?;
        let key = contact.key.clone();
        let send_id = match &request.dispatch_id {
            Some(dispatch_id) => send::send_id(dispatch_id, &key),
            None => Uuid::new_v4().simple().to_string(),
        };
        let message = request.message(send_id.clone());
        let item = message.item(&key);
        let Some(refusal) = send::refusal(&contact, message.way, now) else {
            // Not for somebody who was erased since they were read.
            let added = self.contacts.add_effect(&key, &item).await;
            return match added.map_err(|error| unavailable(&error))? {
                Added::Now => Ok(accepted("accepted", &send_id)),
                Added::Before => Ok(accepted("duplicate", &send_id)),
                Added::NoContact => Err(ErrorCode::ContactUnknown.answer()),
            };
        };
        // What was taken while it was allowed stays taken.
        let before = self.outbox.get(&item.subject, &item.event_key).await;
        if before.map_err(|error| unavailable(&error))?.is_some() {
            return Ok(accepted("duplicate", &send_id));
        }
        metrics::counter!(telemetry::MESSENGER_SEND_FAILURES).increment(1);
        if let Some(event) = message.failed(&key, refusal.into(), now, &self.events) {
            let reported = self.contacts.add_effect(&key, &event).await;
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
    async fn recipient(&self, request: &SendRequest, now: Timestamp) -> Result<Contact, Answer> {
        match &request.recipient {
            Recipient::User(user_id) => self.of_user(user_id, request, now).await,
            Recipient::Scoped(scoped_id) => self.of_scoped_id(scoped_id, request).await,
        }
    }

    /// The index knows them a moment late: enough to take a message in, for it is looked at again before it leaves. To
    /// choose among several, or to refuse, they are read.
    async fn of_user(&self, user_id: &str, request: &SendRequest, now: Timestamp) -> Result<Contact, Answer> {
        let is_meant = |key: &ContactKey| {
            key.channel == request.channel
                && request.account_id.as_ref().is_none_or(|id| *id == key.account_id)
        };
        let mut known = self
            .contacts
            .of_user(user_id)
            .await
            .map_err(|error| unavailable(&error))?;
        known.contacts.retain(|key, _| is_meant(key));
        known.unreadable_contacts.retain(is_meant);
        let way = request.way;
        let may_be_sent = |stored: &&Stored| send::refusal(&stored.contact, way, now).is_none();
        let only = known
            .contacts
            .values()
            .next()
            .filter(|_| known.contacts.len() == 1);
        if let (Some(stored), true) = (only.filter(may_be_sent), known.unreadable_contacts.is_empty()) {
            return Ok(stored.contact.clone());
        }
        let keys = known.contacts.into_keys().chain(known.unreadable_contacts);
        let mut contacts = self.read(&keys.collect::<Vec<_>>()).await?;
        contacts.retain(|contact| contact.user_id() == Some(user_id));
        carrier(contacts).ok_or_else(|| ErrorCode::ContactUnknown.answer())
    }

    async fn of_scoped_id(
        &self,
        scoped_id: &Personal<String>,
        request: &SendRequest,
    ) -> Result<Contact, Answer> {
        let accounts = match &request.account_id {
            Some(account_id) => vec![account_id.clone()],
            None => self.accounts().await?,
        };
        let key = |account_id| ContactKey::new(request.channel, account_id, scoped_id.clone());
        let mut contacts = self
            .read(&accounts.into_iter().map(key).collect::<Vec<_>>())
            .await?;
        if contacts.len() > 1 {
            return Err(field_invalid(
                "page_id",
                "says which page: the `psid` is known on several",
            ));
        }
        contacts.pop().ok_or_else(|| ErrorCode::ContactUnknown.answer())
    }

    async fn read(&self, keys: &[ContactKey]) -> Result<Vec<Contact>, Answer> {
        let known = self.contacts.read(keys, &[], &[]).await;
        let known = known.map_err(|error| unavailable(&error))?;
        if !known.unreadable_contacts.is_empty() {
            return Err(ErrorCode::StoreUnavailable.answer());
        }
        Ok(known
            .contacts
            .into_values()
            .map(|stored| stored.contact)
            .collect())
    }

    /// The pages and Instagram accounts whose people can be written to.
    async fn accounts(&self) -> Result<Vec<String>, Answer> {
        let secret = self.meta.get().await;
        let secret = secret.map_err(|error| secrets_unavailable(&error))?;
        if secret.page_access_tokens.is_empty() {
            return Err(field_invalid(
                "page_id",
                "is needed: the meta secret names no page",
            ));
        }
        Ok(secret.page_access_tokens.keys().cloned().collect())
    }
}

/// Of a user's contacts, the one that was linked or opened its window last: then a sync wrote its id to the profile. What
/// opens no window is not told.
fn carrier(contacts: Vec<Contact>) -> Option<Contact> {
    let told = |contact: &Contact| contact.opened_at.max(contact.link.as_ref().map(|link| link.at));
    contacts
        .into_iter()
        .max_by(|a, b| (told(a), a.last_interaction, &a.key).cmp(&(told(b), b.last_interaction, &b.key)))
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
