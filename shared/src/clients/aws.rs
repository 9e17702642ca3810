//! The AWS SDK over our own HTTPS client, so that a function carries one TLS configuration, whose roots are
//! compiled in.

use std::time::Duration;

use aws_config::{BehaviorVersion, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;

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
        .http_client(Transport(super::http::client(operation)))
        .retry_config(RetryConfig::standard().with_max_attempts(3))
        .timeout_config(timeouts)
        .load()
        .await
}

#[derive(Clone, Debug)]
struct Transport(reqwest::Client);

impl HttpClient for Transport {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Transport {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.0.clone();
        HttpConnectorFuture::new(async move {
            let request = request
                .try_into_http1x()
                .map_err(|error| ConnectorError::user(error.into()))?;
            let (parts, body) = request.into_parts();
            // The services used here send no streams, so the body is in memory.
            let body = body
                .bytes()
                .map(bytes::Bytes::copy_from_slice)
                .unwrap_or_default();
            let request = reqwest::Request::try_from(http::Request::from_parts(parts, body))
                .map_err(|error| ConnectorError::user(error.into()))?;

            let mut answer = client.execute(request).await.map_err(connector_error)?;
            let mut response = http::Response::new(());
            *response.status_mut() = answer.status();
            std::mem::swap(response.headers_mut(), answer.headers_mut());
            let body = answer.bytes().await.map_err(connector_error)?;
            HttpResponse::try_from(response.map(|()| SdkBody::from(body)))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

// The SDK retries timeouts and I/O errors.
fn connector_error(error: reqwest::Error) -> ConnectorError {
    if error.is_timeout() {
        ConnectorError::timeout(error.into())
    } else {
        ConnectorError::io(error.into())
    }
}
