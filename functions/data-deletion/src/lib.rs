//! People who want to be forgotten, as Meta says so.
//!
//! * `POST /meta/deletion`: a person has removed the app and asks for deletion. It is ordered, and `outbox-dispatch` does it.
//! * `GET /meta/deletion/{code}`: how far that is.
//! * `POST /meta/deauthorize`: a person or a page has removed the app. Nothing is deleted.

mod page;

use lambda_http::Request;
use lambda_http::http::header::ACCEPT;
use lambda_http::http::{Method, StatusCode};
use serde_json::{Value, json};
use shared::clock::Clock;
use shared::config::Env;
use shared::digest;
use shared::erase::{self, Erasures, Order, Receipt, Source, Target};
use shared::health;
use shared::outbox::{Kind, Outbox, OutboxItem};
use shared::secrets::{MetaSecret, Secret};
use shared::store::StoreError;
use shared::telemetry;
use shared::webhook::signed_request::SignedRequest;
use shared::webhook::{Answer, ErrorCode, answer, meta};

/// What the function reads from its environment.
#[derive(Debug)]
pub struct Settings {
    meta_secret_id: String,
    outbox_table: String,
    keywords: Vec<String>,
}

impl Settings {
    /// Reads the environment.
    pub fn read(env: &mut Env<'_>) -> Self {
        Self {
            meta_secret_id: env.required("META_SECRET_ID"),
            outbox_table: env.required("OUTBOX_TABLE"),
            keywords: erase::keywords(env),
        }
    }
}

/// The function.
pub struct App {
    meta: Secret<MetaSecret>,
    erasures: Erasures,
    outbox: Outbox,
    keywords: Vec<String>,
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
            erasures: Erasures::new(outbox.clone()),
            outbox,
            keywords: settings.keywords,
            clock,
        }
    }

    /// 200 once what is asked for is durable; 400, 401, 404, 405, 413 or 503 as the route has it.
    pub async fn handle(&self, request: Request) -> Answer {
        let is_deauthorization = request
            .uri()
            .path()
            .trim_end_matches('/')
            .ends_with("/deauthorize");
        let answered = match (request.method(), is_deauthorization) {
            (&Method::GET, false) => Box::pin(self.status(&request)).await,
            (&Method::POST, true) => Box::pin(self.deauthorize(request)).await,
            (&Method::POST, false) => Box::pin(self.delete(request)).await,
            _ => Err(ErrorCode::MethodNotAllowed.answer()),
        };
        answered.unwrap_or_else(|refusal| refusal)
    }

    async fn delete(&self, request: Request) -> Result<Answer, Answer> {
        let base = base(&request);
        let asked = self.accept(request).await?;
        let Some(id) = asked.user_id else {
            return Err(ErrorCode::SignedRequestMalformed.answer());
        };
        let code = asked.id.short();
        let target = Target::Scoped {
            id,
            accounts: Vec::new(),
        };
        let requested_at = asked.issued_at.unwrap_or_else(|| self.clock.now());
        let order = Order::new(target, Source::Callback, requested_at);
        // The same request again is the same erasure.
        let ordered = self.erasures.order(&code, &order).await;
        ordered.map_err(|error| unavailable(&error))?;
        let url = format!("{base}/meta/deletion/{code}");
        let body = json!({"url": url, "confirmation_code": code});
        Ok(answer::json(StatusCode::OK, &body))
    }

    /// Whoever removes the app takes tokens along. What is lost by it, a look at the app's pages finds out at once.
    async fn deauthorize(&self, request: Request) -> Result<Answer, Answer> {
        let asked = self.accept(request).await?;
        if asked.user_id.is_none() && asked.profile_id.is_none() {
            return Err(ErrorCode::SignedRequestMalformed.answer());
        }
        let look = OutboxItem {
            subject: health::SUBJECT.to_owned(),
            event_key: format!("deauthorized#{}", asked.id.short()),
            kind: Kind::HealthCheck,
            payload: Value::Null,
            not_before: None,
        };
        let is_new = self.outbox.add(&look).await;
        if is_new.map_err(|error| unavailable(&error))? {
            metrics::counter!(telemetry::DEAUTHORIZATIONS).increment(1);
            tracing::warn!(
                page = asked.profile_id,
                person = asked.user_id.map(|id| telemetry::pseudonym(&id)),
                "the app was removed at Meta, and the tokens that came with it are dead"
            );
        }
        Ok(answer::json(StatusCode::OK, &json!({})))
    }

    async fn accept(&self, request: Request) -> Result<SignedRequest, Answer> {
        meta::accept_signed_request(request, &self.meta, self.clock.now()).await
    }

    async fn status(&self, request: &Request) -> Result<Answer, Answer> {
        let unknown = || ErrorCode::ErasureUnknown.answer();
        let path = request.uri().path().trim_end_matches('/');
        let code = path.rsplit('/').next().filter(|code| digest::is_short(code));
        let receipt = self.erasures.receipt(code.ok_or_else(unknown)?).await;
        let receipt = receipt
            .map_err(|error| unavailable(&error))?
            .ok_or_else(unknown)?;
        let keyword = self.keywords.first().map(String::as_str);
        if prefers_json(request) {
            return Ok(answer::json(StatusCode::OK, &told(&receipt, keyword)));
        }
        Ok(answer::html(page::render(&receipt, keyword)))
    }
}

fn told(receipt: &Receipt, keyword: Option<&str>) -> Value {
    json!({
        "status": receipt.status,
        "requested_at": receipt.requested_at,
        "finished_at": receipt.finished_at,
        "keyword": keyword,
    })
}

fn prefers_json(request: &Request) -> bool {
    let accept = request
        .headers()
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("application/json") && !accept.contains("text/html"))
}

/// Where the request came to: what Meta shows people leads to the same place.
fn base(request: &Request) -> String {
    let uri = request.uri();
    let scheme = uri.scheme_str().unwrap_or("https");
    let authority = uri
        .authority()
        .map_or("localhost", |authority| authority.as_str());
    format!("{scheme}://{authority}")
}

fn unavailable(error: &StoreError) -> Answer {
    tracing::error!(%error, "a request to be forgotten could not be made durable or looked up");
    ErrorCode::StoreUnavailable.answer()
}
