//! `POST /whatsapp/inbound`: what people write on WhatsApp, as a Braze webhook campaign forwards it.
//! `POST /whatsapp/reply`: what the external system answers later.

mod access;
mod inbound;
mod reply;

use lambda_http::Request;
use lambda_http::http::{Method, StatusCode};
use serde_json::json;
use shared::clock::Clock;
use shared::config::Env;
use shared::outbox::Outbox;
use shared::secrets::{RelaySecret, Secret};
use shared::store::StoreError;
use shared::webhook::{Answer, ErrorCode, answer, receive};
use shared::whatsapp::route::RouteTable;
use shared::whatsapp::settings::InboundSettings;
use shared::whatsapp::table::Conversations;

/// Why something is decided anew no longer because the conversation changed in between.
const CONTENDED: &str = "a conversation is written too often to keep up with";

/// What the function reads from its environment.
#[derive(Debug)]
pub struct Settings {
    relay_secret_id: String,
    conversations_table: String,
    outbox_table: String,
    inbound: InboundSettings,
}

impl Settings {
    /// Reads the environment.
    pub fn read(env: &mut Env<'_>) -> Self {
        Self {
            relay_secret_id: env.required("RELAY_SECRET_ID"),
            conversations_table: env.required("CONVERSATIONS_TABLE"),
            outbox_table: env.required("OUTBOX_TABLE"),
            inbound: InboundSettings::read(env),
        }
    }
}

/// The function.
pub struct App {
    secret: Secret<RelaySecret>,
    conversations: Conversations,
    outbox: Outbox,
    settings: InboundSettings,
    routes: RouteTable,
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
        let conversations = Conversations::new(settings.conversations_table, outbox.clone());
        Self {
            secret: Secret::new(secrets.clone(), &settings.relay_secret_id, clock.clone()),
            conversations,
            outbox,
            routes: RouteTable::new(&settings.inbound.rules.routes),
            settings: settings.inbound,
            clock,
        }
    }

    /// 202 once everything that has to be kept is durable; 400, 401, 404, 409, 413 or 503 as the route has it.
    pub async fn handle(&self, request: Request) -> Answer {
        if request.method() != Method::POST {
            return ErrorCode::MethodNotAllowed.answer();
        }
        let is_reply = request.uri().path().trim_end_matches('/').ends_with("/reply");
        let (parts, body) = match receive::take(request) {
            Ok(taken) => taken,
            Err(code) => return code.answer(),
        };
        let answered = if is_reply {
            Box::pin(self.reply(&parts.headers, body)).await
        } else {
            Box::pin(self.inbound(&parts.headers, body)).await
        };
        answered.unwrap_or_else(|refusal| refusal)
    }
}

fn accepted(status: &str, message_id: Option<&str>, reason: Option<&str>) -> Answer {
    let body = json!({"status": status, "message_id": message_id, "reason": reason});
    answer::json(StatusCode::ACCEPTED, &body)
}

fn store_unavailable(error: &StoreError) -> Answer {
    tracing::error!(%error, "a message or an answer could not be made durable");
    ErrorCode::StoreUnavailable.answer()
}
