//! The AWS SDK over our own HTTPS client, so that a function carries one TLS configuration, whose roots are
//! compiled in.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_runtime_api::client::http::{
    self as smithy, HttpClient, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;

use super::http;

/// Who waits for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// A sender who gives us seconds (Meta: 5). DynamoDB and Secrets Manager answer in milliseconds; waiting
    /// longer than this eats the sender's time, and a 503 makes it try again.
    Webhook,
    /// Nobody. Giving up early would only repeat work that is already under way.
    Background,
}

impl Patience {
    /// One attempt, and a call with its retries.
    fn timeouts(self) -> (Duration, Duration) {
        match self {
            Self::Webhook => (Duration::from_millis(1500), Duration::from_secs(4)),
            Self::Background => (Duration::from_secs(10), Duration::from_secs(30)),
        }
    }
}

/// Region, credentials and endpoint from the environment, as the SDK reads them. `AWS_ENDPOINT_URL` points
/// everything at an emulator.
pub async fn config(patience: Patience) -> SdkConfig {
    let (attempt, operation) = patience.timeouts();
    let timeouts = TimeoutConfig::builder()
        .operation_attempt_timeout(attempt)
        .operation_timeout(operation)
        .build();
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(Transport::new())
        .retry_config(RetryConfig::standard().with_max_attempts(3))
        .timeout_config(timeouts)
        // Nothing is streamed: a call that stalls meets its timeout.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .load()
        .await
}

/// HTTP/1.1, which DynamoDB and Secrets Manager speak; the SDK keeps the timeouts. `reqwest`, with requests of another
/// type and timers of its own, costs a tenth of a webhook's processor time more.
#[derive(Clone, Debug)]
struct Transport(Client<HttpsConnector<HttpConnector>, SdkBody>);

impl Transport {
    fn new() -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(http::CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(http::TLS.clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let mut builder = Client::builder(TokioExecutor::new());
        Self(builder.pool_idle_timeout(http::IDLE_TIMEOUT).build(connector))
    }
}

impl HttpClient for Transport {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl smithy::HttpConnector for Transport {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.0.clone();
        HttpConnectorFuture::new(async move {
            let request = request
                .try_into_http1x()
                .map_err(|error| ConnectorError::user(error.into()))?;
            // The SDK retries I/O errors.
            let answer = client
                .request(request)
                .await
                .map_err(|error| ConnectorError::io(error.into()))?;
            HttpResponse::try_from(answer.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}
