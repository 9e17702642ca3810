//! The HTTP API: routes requests to functions.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use percent_encoding::percent_decode_str;
use shared::clock::Clock;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::http_event::{HttpRequest, request_event, response};
use super::{Handler, invoke};

/// API Gateway's limit of a request.
const MAX_BODY_BYTES: usize = 10 * 1024 * 1024;
/// API Gateway waits no longer for a function.
const INTEGRATION_TIMEOUT: Duration = Duration::from_secs(30);

/// One route and the function behind it.
#[derive(Clone)]
pub struct GatewayRoute {
    /// In upper case, or `ANY`.
    pub method: String,
    /// The whole path, with a leading slash.
    pub path: String,
    /// The function.
    pub handler: Handler,
    /// The function's time limit; `None` = only the gateway's own of 30 seconds.
    pub timeout: Option<Duration>,
}

/// The HTTP API, serving.
pub struct Gateway {
    address: SocketAddr,
    served: JoinHandle<()>,
}

impl Gateway {
    /// Answers on `listener` until `stop` is cancelled; requests in hand are answered first. `clock` dates the events.
    ///
    /// The listener comes from outside because a function may have to know its own URL before it is made.
    ///
    /// # Errors
    ///
    /// When the listener has no address.
    pub fn serve(
        listener: TcpListener,
        routes: Vec<GatewayRoute>,
        clock: Clock,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        Self::serve_beside(listener, routes, Router::new(), clock, stop)
    }

    /// The same, with the routes of `beside` before those of the functions. It must have no fallback.
    ///
    /// # Errors
    ///
    /// When the listener has no address.
    pub fn serve_beside(
        listener: TcpListener,
        routes: Vec<GatewayRoute>,
        beside: Router,
        clock: Clock,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let address = listener.local_addr()?;
        let service = Router::new()
            .fallback(answer)
            .with_state((Arc::<[GatewayRoute]>::from(routes), clock))
            .merge(beside);
        let service = service.into_make_service_with_connect_info::<SocketAddr>();
        let served = tokio::spawn(async move {
            let served = axum::serve(listener, service)
                .with_graceful_shutdown(stop.cancelled_owned())
                .await;
            if let Err(error) = served {
                tracing::error!(%error, "the HTTP API stopped");
            }
        });
        Ok(Self { address, served })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, without a trailing slash.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until it has stopped.
    pub async fn stopped(self) {
        if self.served.await.is_err() {
            tracing::error!("the HTTP API panicked");
        }
    }
}

async fn answer(
    State((routes, clock)): State<(Arc<[GatewayRoute]>, Clock)>,
    ConnectInfo(source): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let method = request.method().as_str();
    let path = request.uri().path();
    let fits = |route: &&GatewayRoute, wanted: &str| {
        route.method == wanted && path_parameters(&route.path, path).is_some()
    };
    let route = routes.iter().find(|route| fits(route, method));
    let Some(route) = route.or_else(|| routes.iter().find(|route| fits(route, "ANY"))) else {
        return message(StatusCode::NOT_FOUND, "Not Found");
    };
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY_BYTES).await else {
        return message(StatusCode::PAYLOAD_TOO_LARGE, "Request Entity Too Large");
    };
    let event = request_event(
        &HttpRequest {
            method: head.method.as_str().to_owned(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            headers: head.headers,
            body,
            source,
        },
        &format!("{} {}", route.method, route.path),
        &path_parameters(&route.path, head.uri.path()).unwrap_or_default(),
        clock.now(),
    );
    let invocation = invoke(&route.handler, event, route.timeout);
    let Ok(answer) = tokio::time::timeout(INTEGRATION_TIMEOUT, invocation).await else {
        return message(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable");
    };
    match answer.and_then(|answer| response(&answer)) {
        Ok(response) => response,
        Err(error) => {
            tracing::error!(route = %route.path, %error, "a function failed");
            message(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
        }
    }
}

/// What stands in place of each `{name}` of a route's path; `None` if the path is another route's.
fn path_parameters(route: &str, path: &str) -> Option<BTreeMap<String, String>> {
    let (route, path) = (route.split('/'), path.split('/'));
    if route.clone().count() != path.clone().count() {
        return None;
    }
    let mut parameters = BTreeMap::new();
    for (wanted, given) in route.zip(path) {
        match wanted.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(_) if given.is_empty() => return None,
            Some(name) => {
                let value = percent_decode_str(given).decode_utf8_lossy().into_owned();
                parameters.insert(name.to_owned(), value);
            }
            None if wanted == given => {}
            None => return None,
        }
    }
    Some(parameters)
}

fn message(status: StatusCode, text: &str) -> Response {
    let body = serde_json::json!({ "message": text }).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
