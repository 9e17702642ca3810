//! `GET /messenger/webhook`: Meta's handshake.

use lambda_http::Request;
use shared::clock::Clock;
use shared::config::Env;
use shared::secrets::{MetaSecret, Secret};
use shared::webhook::{Answer, handshake};

/// What the function reads from its environment.
#[derive(Debug)]
pub struct Settings {
    meta_secret_id: String,
}

impl Settings {
    /// Reads the environment.
    pub fn read(env: &mut Env<'_>) -> Self {
        Self {
            meta_secret_id: env.required("META_SECRET_ID"),
        }
    }
}

/// The function.
#[derive(Debug)]
pub struct App {
    secret: Secret<MetaSecret>,
}

impl App {
    /// Nothing is fetched yet.
    #[must_use]
    pub fn new(settings: &Settings, secrets: aws_sdk_secretsmanager::Client, clock: Clock) -> Self {
        Self {
            secret: Secret::new(secrets, &settings.meta_secret_id, clock),
        }
    }

    /// 200 with the challenge; 403, 400 or 503.
    pub async fn handle(&self, request: Request) -> Answer {
        handshake::answer(&request, &self.secret, |meta| &meta.verify_token).await
    }
}
