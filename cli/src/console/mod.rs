//! The console: one page in which a newcomer sees the whole thing work, and an operator finds out what happened.
//!
//! Served by the binary itself on the loopback interface. Templates are checked at compile time, a page asks for nothing
//! from another host, and nobody gets in without the token of the printed address.

mod access;
mod assets;
mod faults;
mod flow;
mod live;
mod page;
mod read;
mod record;
mod shown;
mod state;
mod tables;
mod views;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{get, post};
use serde_json::Value;
use shared::clients::http;
use shared::clock::Clock;
use testkit::lambda::Handler;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::access::Access;
use self::faults::Faults;
use self::flow::Flows;
use self::read::Keys;
use self::record::Recorder;
use self::shown::Shown;
use self::state::{Console, Local};
use self::tables::Tables;
use self::views::{businesses, conversations, flow as flows, people, search, tries, waiting};
use crate::fakes::Fakes;

/// How long a webhook may take that the console posts.
const PATIENCE: Duration = Duration::from_secs(40);

/// What the console of a local stack is made of.
pub(crate) struct Parts<'a> {
    pub(crate) name: &'a str,
    pub(crate) dynamodb: aws_sdk_dynamodb::Client,
    /// A table's name by its logical id.
    pub(crate) table: &'a dyn Fn(&str) -> anyhow::Result<String>,
    pub(crate) fakes: Arc<Fakes>,
    pub(crate) secrets: &'a BTreeMap<String, Value>,
    /// The base URL of the HTTP API.
    pub(crate) url: &'a str,
    pub(crate) port: u16,
    pub(crate) data_dir: Option<&'a Path>,
    pub(crate) clock: &'a Clock,
    pub(crate) stop: &'a CancellationToken,
}

/// The console of a local stack: it watches its functions, and drives it.
pub(crate) struct LocalConsole {
    recorder: Arc<Recorder>,
    console: Arc<Console>,
    access: Arc<Access>,
    /// The address that opens it.
    pub(crate) address: String,
}

impl LocalConsole {
    pub(crate) fn new(parts: &Parts<'_>) -> anyhow::Result<Self> {
        let tables = Tables::new(parts.dynamodb.clone(), parts.table, parts.clock)?;
        let token = access::token(parts.data_dir)?;
        let flows = Arc::new(Flows::new());
        let keys = Keys::of(parts.secrets);
        Ok(Self {
            recorder: Recorder::new(flows.clone(), tables.clone(), keys, parts.clock.clone()),
            address: format!("{}/console?token={token}", parts.url),
            access: Access::new(token, parts.port),
            console: Arc::new(Console {
                name: parts.name.to_owned(),
                tables,
                shown: Shown::Plain,
                clock: parts.clock.clone(),
                local: Some(Local {
                    flows,
                    fakes: parts.fakes.clone(),
                    faults: Faults::default(),
                    secrets: parts.secrets.clone(),
                    url: parts.url.to_owned(),
                    http: http::client(PATIENCE),
                }),
                stop: parts.stop.clone(),
            }),
        })
    }

    /// A function behind the HTTP API, watched.
    pub(crate) fn recording(&self, function: Handler) -> Handler {
        self.recorder.recording(function)
    }

    /// Begins to look for what follows, until the stack stops.
    pub(crate) fn follow(&self) {
        if let Some(local) = &self.console.local {
            let followed = self
                .recorder
                .clone()
                .follow(local.fakes.clone(), self.console.stop.clone());
            tokio::spawn(followed);
        }
    }

    /// Its routes.
    pub(crate) fn router(&self) -> Router {
        router(self.console.clone(), self.access.clone())
    }
}

/// What the console of a deployed stack is made of.
pub(crate) struct Deployed<'a> {
    pub(crate) name: &'a str,
    pub(crate) dynamodb: aws_sdk_dynamodb::Client,
    /// A table's name by its logical id.
    pub(crate) table: &'a dyn Fn(&str) -> anyhow::Result<String>,
    /// Whether ids, names and texts of people are shown.
    pub(crate) reveal: bool,
    /// On the loopback interface; 0 takes a free one.
    pub(crate) port: u16,
    pub(crate) clock: &'a Clock,
    pub(crate) stop: &'a CancellationToken,
}

/// Serves the console of a deployed stack until stopped: it reads by key and index, and writes nothing. The address that
/// opens it, and the serving.
pub(crate) async fn serve(
    parts: Deployed<'_>,
) -> anyhow::Result<(String, impl Future<Output = anyhow::Result<()>> + use<>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, parts.port)).await;
    let listener =
        listener.with_context(|| format!("cannot listen on {}; try another --port", parts.port))?;
    let port = listener.local_addr()?.port();
    let token = access::token(None)?;
    let console = Console {
        name: parts.name.to_owned(),
        tables: Tables::new(parts.dynamodb, parts.table, parts.clock)?,
        shown: Shown::sealed(parts.reveal),
        clock: parts.clock.clone(),
        local: None,
        stop: parts.stop.clone(),
    };
    let address = format!("http://127.0.0.1:{port}/console?token={token}");
    let router = router(Arc::new(console), Access::new(token, port));
    let stopped = parts.stop.clone().cancelled_owned();
    let served = async move {
        axum::serve(listener, router)
            .with_graceful_shutdown(stopped)
            .await?;
        Ok(())
    };
    Ok((address, served))
}

fn router(console: Arc<Console>, access: Arc<Access>) -> Router {
    let reads = Router::new()
        .route("/console", get(flows::list))
        .route("/console/", get(flows::list))
        .route("/console/flow/{number}", get(flows::one))
        .route("/console/people", get(people::list))
        .route("/console/people/{id}", get(people::one))
        .route("/console/conversations", get(conversations::list))
        .route("/console/conversations/{id}", get(conversations::one))
        .route("/console/businesses", get(businesses::list))
        .route("/console/businesses/{id}", get(businesses::one))
        .route("/console/waiting", get(waiting::list))
        .route("/console/waiting/item/{id}", get(waiting::one))
        .route("/console/waiting/kept/{id}", get(waiting::kept))
        .route("/console/search", get(search::form).post(search::search))
        .route("/console/live", get(live::events))
        .route("/console/assets/{version}/{name}", get(assets::get));
    // A deployed stack has none of these: what only reads cannot write.
    let drives = Router::new()
        .route("/console/conversations/{id}/say", post(conversations::say))
        .route("/console/waiting/redrive", post(waiting::redrive_all))
        .route("/console/waiting/item/{id}/redrive", post(waiting::redrive))
        .route("/console/try", get(tries::form))
        .route("/console/try/start/{name}", post(tries::start))
        .route("/console/try/send", post(tries::send))
        .route("/console/try/fault", post(tries::fault));
    let all = if console.local.is_some() {
        reads.merge(drives)
    } else {
        reads
    };
    // A form triples what it escapes.
    all.layer(DefaultBodyLimit::max(3 * tries::LARGEST))
        .layer(middleware::from_fn_with_state(access, access::guard))
        .with_state(console)
}
